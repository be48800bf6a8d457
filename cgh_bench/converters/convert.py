"""Converting one or many checkpoints: what is written where, the proof, and the certificate."""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgh_bench import __version__
from cgh_bench.checkpoint import Checkpoint, describe
from cgh_bench.converters import parity
from cgh_bench.converters.base import Converter, find
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import alone_in, sha256, write_text
from cgh_bench.reading.names import stem

FORMAT = "cgh-bench-certificate/1"
Read = tuple[Checkpoint, Mapping[str, Any] | None]
"""A checkpoint, and what was compared with the outputs of its origin; see `loading.proven`."""


def convert(
    checkpoint: Checkpoint,
    target: str,
    out: Path,
    verify: bool = True,
    compared: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `checkpoint` for `target` to `out`, with its configuration fragments and its certificate beside it.

    Concurrent conversions to one path wait for each other.

    Everything is written to a hidden folder first and moved into place after it has been read back bit for bit and
    (with `verify`) after the target's own network has computed the same outputs. The certificate is written last and
    has the hash of every file that it covers: files without one come from a conversion that was killed.

    Args:
        checkpoint: what is written.
        target: a converter's name.
        out: the file or folder to write.
        verify: compare the outputs of the target's network.
        compared: what was compared with the outputs of the origin before (see `loading.proven`), for the certificate.

    Returns:
        The certificate, as in `OUT.certificate.json`.

    Raises:
        UserError: the target is unknown, cannot hold this checkpoint, or is not installed; or `out` holds something
            else than an earlier conversion.
        CheckFailed: the target computes something else. Then `out` is left as it was, and `OUT.failed.json` says why.
    """
    converter = find(target)
    converter.require_supported(checkpoint)
    if verify:
        converter.require_installed()
    _require_writable(converter, out)
    with alone_in(out, wait=True, tidy=True):
        return _convert(checkpoint, converter, out, verify, compared)


def _convert(
    checkpoint: Checkpoint, converter: Converter, out: Path, verify: bool, compared: Mapping[str, Any] | None
) -> dict[str, Any]:
    certificate_path = _certificate(out)
    if out.is_dir() and any(out.iterdir()) and not _is_earlier_conversion(out, certificate_path):
        raise UserError(f"{out} contains files that are not from an earlier conversion; name a new folder with -o")
    started = time.monotonic()
    with _staging(out.with_name(f".{out.name}.converting")) as folder:
        staged = folder / out.name
        converter.write(checkpoint, staged)
        fragments = converter.fragments(checkpoint, staged)
        for name, text in fragments.items():
            write_text(staged.with_name(name), text)
        measured, complaint = _examine(converter, checkpoint, staged, verify)
        certificate = {
            "format": FORMAT,
            "verdict": "failed" if complaint else "same outputs" if verify else "not verified",
            "why": complaint,
            "target": converter.name,
            "file": out.name,
            "sha256": _hash(staged),
            "checkpoint": {"id": checkpoint.id, **_brief(checkpoint)},
            "reach": checkpoint.origin.reach,
            **({"reference": compared} if compared else {}),
            "tensors": len(checkpoint.weights),
            "read_back": "bit for bit",
            **measured,
            "fragments": list(fragments),
            "sha256_of_fragments": {name: sha256(staged.with_name(name)) for name in fragments},
            "cgh_bench": __version__,
            "seconds": round(time.monotonic() - started, 2),
        }
        document = json.dumps(certificate, indent=1) + "\n"
        if complaint:
            failed = out.with_name(f"{out.name}.failed.json")
            write_text(failed, document)
            raise CheckFailed(f"{out} was not written: {complaint}; see {failed}")
        certificate_path.unlink(missing_ok=True)
        for name in fragments:
            staged.with_name(name).replace(out.with_name(name))
        if out.is_dir():
            out.replace(folder / "earlier")  # removed with the hidden folder
        staged.replace(out)
        write_text(certificate_path, document)
    return certificate


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A new folder, removed with all that is left in it; what a killed conversion to the same place has left is too."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _examine(converter: Converter, checkpoint: Checkpoint, staged: Path, verify: bool) -> tuple[dict[str, object], str]:
    """The measured part of the certificate, and what is wrong, if anything."""
    if converter.read(staged).id != checkpoint.id:
        return {}, f"the {converter.name} file read back differs from what was written"
    if not verify:
        return {}, ""
    from cgh_bench.reading.reference_script import probe_images

    pixels = probe_images(*checkpoint.architecture.image_size)
    try:
        target = converter.outputs(staged, pixels)
        differences = parity.compare(parity.source_outputs(checkpoint, pixels).stages, target.stages)
    except CheckFailed as failure:
        return {}, str(failure)
    return parity.as_json(target, differences), parity.verdict(target, differences)


def _certificate(out: Path) -> Path:
    return out.with_name(f"{out.name}.certificate.json")


def _require_writable(converter: Converter, out: Path) -> None:
    _certificate(out).exists()  # raises where the name is too long
    if not converter.is_folder:
        if out.suffix not in converter.suffixes:
            raise UserError(f"{out}: {converter.name} output must end in {' or '.join(converter.suffixes)}")
        if out.is_dir():
            raise UserError(f"{out} is a folder; name a file to write")
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, but {converter.name} output is a folder; name another path")


def _is_earlier_conversion(folder: Path, certificate: Path) -> bool:
    """Whether the files of `folder` are those that its certificate vouches for, all of them unchanged."""
    try:
        vouched = json.loads(certificate.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    files = list(folder.iterdir())
    return all(file.is_file() for file in files) and vouched == _hash(folder)


def _brief(checkpoint: Checkpoint) -> dict[str, Any]:
    """The description without the long list of ignored tensors."""
    description: dict[str, Any] = json.loads(describe(checkpoint))
    description["origin"]["ignored"] = len(checkpoint.origin.ignored)
    return description


def _hash(path: Path) -> str | dict[str, str]:
    if path.is_dir():
        return {file.name: sha256(file) for file in sorted(path.iterdir())}
    return sha256(path)


def plan(names: Sequence[str], target: str, out: Path | None) -> dict[str, Path]:
    """The output path for each checkpoint.

    Args:
        names: checkpoint names (see `loading.load`).
        target: a converter's name.
        out: the file for a single input; the folder for several; None for beside each input.

    Raises:
        UserError: two inputs would be written to one file, or an input would be written over.
    """
    converter = find(target)
    suffix = converter.suffixes[0] if converter.suffixes else ""
    if out is not None and len(names) == 1 and not (out.is_dir() and not converter.is_folder):
        planned = {names[0]: out}
    else:
        planned = {}
        for name in names:
            is_file = Path(name).exists()
            named = re.sub(r"[^\w.-]+", "_", name.partition("#")[0])
            called = stem(Path(name)) if is_file else named
            folder = out or (Path(name).parent if is_file else Path())
            planned[name] = folder / f"{called}.{target}{suffix}"
    places = list(planned.values())
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise UserError(f"several checkpoints would be written to {twice}; convert them one by one with -o")
    for name, place in planned.items():
        if Path(name).exists() and os.path.realpath(name) == os.path.realpath(place):
            raise UserError(f"{place} is the checkpoint itself; name another file with -o")
    return planned


def preview(planned: dict[str, Path], target: str, read: Callable[[str], Read], verify: bool = True) -> list[str]:
    """A line per input that says what `run` would do, after reading all of them.

    Raises:
        UserError: an input cannot be read, the target does not support it, or is not installed to `verify` it.
    """
    lines = []
    if verify:
        find(target).require_installed()
    for name, out in planned.items():
        checkpoint, _ = read(name)
        find(target).require_supported(checkpoint)
        origin = f"{checkpoint.origin.source} {checkpoint.origin.branch}".strip()
        lines.append(f"would write {out}: {checkpoint.architecture.name} ({checkpoint.id}) from {name} ({origin})")
    return lines


def run(planned: dict[str, Path], target: str, read: Callable[[str], Read], verify: bool) -> list[dict[str, Any]]:
    """Convert all of `planned` and return the certificates, each with its `input`.

    Raises:
        CheckFailed: some were not written (after trying all).
        UserError: an input cannot be read or converted (at the first one).
    """
    certificates, failures = [], []
    for name, out in planned.items():
        try:
            checkpoint, compared = read(name)
            certificate = convert(checkpoint, target, out, verify, compared)
        except CheckFailed as failure:
            failures.append(str(failure))
            continue
        certificates.append({"input": name, "out": str(out), **certificate})
    if failures:
        raise CheckFailed("; ".join(failures))
    return certificates


def sentence(certificate: dict[str, Any]) -> str:
    """One line on a conversion, for the terminal."""
    stages = certificate.get("stages", [])
    written = f"wrote {certificate['out']}: {certificate['tensors']} tensors"
    if not stages:
        return f"{written}, read back bit for bit; the outputs were not compared (--no-verify)"
    worst = max(stages, key=lambda stage: stage["relative"])
    return (
        f"{written}, all used by {certificate['network']}; outputs differ by at most {worst['relative']:.0e} "
        f"({worst['stage']}){'; with ' if certificate['fragments'] else ''}{', '.join(certificate['fragments'])}"
    )
