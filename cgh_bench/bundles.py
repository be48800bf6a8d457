"""Results that travel: one zip file of records and answers, from which everything that can be is computed again."""

import dataclasses
import hashlib
import json
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cgh_bench import outcomes, results
from cgh_bench.core.errors import CheckFailed, UserError, one_line
from cgh_bench.core.files import replacing, scratch
from cgh_bench.results import Result

VERSION = 1
MANIFEST, STORE = "manifest.json", "results.jsonl"
KEPT = (outcomes.FILE, "loaded.json")
"""What a bundle has of a run's folder: its answers, and the proof of which tensors arrived in a framework's model."""
_OWN = re.compile(r"runs/\d+/(" + "|".join(map(re.escape, KEPT)) + ")")
"""Nothing else is written where a bundle is unpacked."""


def write(chosen: Sequence[Result], root: Path, path: Path) -> None:
    """Write results with what their runs answered to the zip file `path`.

    Args:
        chosen: the records; weights are in them by their hash, packages by their versions.
        root: the folder of the results.
        path: of the bundle.

    Raises:
        UserError: there is no result, or a run kept no answers.
    """
    if not chosen:
        raise UserError("no result to bundle; see `cgh-bench results list`")
    files: dict[str, bytes] = {}
    moved = []
    for number, result in enumerate(chosen, start=1):
        outcomes.of_run(result, root)
        folder = f"runs/{number}"
        present = [root / result.work / name for name in KEPT if (root / result.work / name).exists()]
        files |= {f"{folder}/{file.name}": file.read_bytes() for file in present}
        moved.append(json.dumps(dataclasses.asdict(dataclasses.replace(result, work=folder)), sort_keys=True))
    files[STORE] = ("\n".join(moved) + "\n").encode()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MANIFEST] = json.dumps({"version": VERSION, "sha256": hashes}, indent=1).encode()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(zipfile.ZipInfo(name), content)


@dataclasses.dataclass(frozen=True)
class Verified:
    """One result of a bundle, whose numbers were computed again."""

    result: Result
    confirmed: tuple[str, ...]
    """Metrics that the answers give."""
    not_determined: tuple[str, ...]
    """Metrics that they do not determine."""


def verify(path: Path) -> list[Verified]:
    """Check every hash of a bundle and compute every number again that its answers determine.

    Raises:
        UserError: it is not a bundle, or of another version.
        CheckFailed: it was altered, or a number does not follow from the answers; the message says which.
    """
    with scratch() as folder:
        return unpack(path, folder)


def unpack(path: Path, root: Path) -> list[Verified]:
    """Verify a bundle as `verify` does, and write its files into the folder `root`, a workspace of its own."""
    files = _files(path)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    records, complaints = results.read(root / STORE)
    if complaints:
        raise CheckFailed(f"{path}: {complaints[0].removeprefix(str(root))}")
    found = []
    for record in records:
        if f"{record.work}/{outcomes.FILE}" not in files:
            raise CheckFailed(f"{path} has no predictions for {record.protocol} of {record.checkpoint_name}")
        found.append(_confirmed(record, outcomes.of_run(record, root).metrics(), path))
    return found


def gather(folder: Path, root: Path) -> list[Verified]:
    """Verify every bundle in a folder and put their results together in the workspace `root`, which is empty.

    Raises:
        UserError: there is no bundle in the folder, or one is not a bundle.
        CheckFailed: one was altered, or a number does not follow from the answers.
    """
    paths = sorted(folder.glob("*.zip"))
    if not paths:
        raise UserError(f"no bundle (*.zip) in {folder}; `cgh-bench results bundle -o {folder}/NAME.zip` writes one")
    found = []
    for path in paths:
        found += unpack(path, root / path.stem)
    results.merge([root / path.stem / STORE for path in paths], root / STORE)
    return found


def _files(path: Path) -> dict[str, bytes]:
    """The content of a bundle, its hashes checked."""
    try:
        with zipfile.ZipFile(path) as bundle:
            files = {name: bundle.read(name) for name in bundle.namelist()}
        manifest = json.loads(files.pop(MANIFEST))
        version, hashes = manifest["version"], dict(manifest["sha256"])
    except FileNotFoundError:
        raise UserError(f"no bundle {path}; `cgh-bench results bundle -o {path}` writes one") from None
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a bundle of results ({one_line(error)})") from None
    if version != VERSION:
        raise UserError(f"{path} has version {version}; this cgh-bench reads version {VERSION}")
    changed = [name for name in files if hashlib.sha256(files[name]).hexdigest() != hashes.get(name)]
    if odd := sorted({*changed, *(hashes.keys() - files.keys())}):
        raise CheckFailed(f"{path} was altered: {', '.join(odd[:5])} does not match the manifest")
    strange = [name for name in files if name != STORE and not _OWN.fullmatch(name)]
    if STORE not in files or strange:
        raise CheckFailed(f"{path} holds {', '.join(strange[:5]) or 'no results'}, which is not valid in a bundle")
    return files


def _confirmed(record: Result, again: dict[str, float], path: Path) -> Verified:
    for name, value in record.metrics.items():
        if name in again and not math.isclose(value, again[name], rel_tol=1e-6, abs_tol=1e-6):
            raise CheckFailed(
                f"{path}: {record.protocol} of {record.checkpoint_name} says {name} {value:.4f}, its predictions give "
                f"{again[name]:.4f}"
            )
    confirmed = tuple(name for name in record.metrics if name in again)
    return Verified(record, confirmed, tuple(name for name in record.metrics if name not in again))
