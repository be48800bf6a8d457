"""Converting one or many checkpoints: what is written where, and what to tell of it."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench import checkpoint, converters
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.reading.loading import load


@dataclass(frozen=True)
class Reading:
    """How the inputs are read; see `loading.load`."""

    source: str | None = None
    branch: str | None = None
    trust_pickle: bool = False

    def load(self, name: str) -> checkpoint.Checkpoint:
        """The checkpoint `name` read so."""
        return load(name, self.source, self.branch, self.trust_pickle)


def plan(inputs: Sequence[str], target: str, out: Path | None) -> dict[str, Path]:
    """Which file becomes which.

    Args:
        inputs: files, Hugging Face folders, controls (`random:ARCH`), or patterns of them.
        target: a converter's name.
        out: the file for a single input; the folder for several; None for beside each input.

    Raises:
        UserError: a pattern that matches nothing, two inputs that would be written to one file, or an input that would
            be written over.
    """
    converter = converters.find(target)
    suffix = converter.suffixes[0] if converter.suffixes else ""
    expanded = [name for pattern in inputs for name in _expand(pattern)]
    if out is not None and len(expanded) == 1 and not (out.is_dir() and not converter.is_folder):
        return _apart({expanded[0]: out})
    planned: dict[str, Path] = {}
    for name in expanded:
        is_file = Path(name).exists()
        stem = Path(name).name.split(".")[0] if is_file else name.replace(":", "_")
        folder = out or (Path(name).parent if is_file else Path())
        planned[name] = folder / f"{stem}.{target}{suffix}"
    places = list(planned.values())
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice:
        raise UserError(f"several of the checkpoints would be written to {twice}; convert them one by one with -o")
    return _apart(planned)


def _apart(planned: dict[str, Path]) -> dict[str, Path]:
    """What is planned, unless something would be written over what it is read from."""
    for name, out in planned.items():
        if Path(name).exists() and Path(name).resolve() == out.resolve():
            raise UserError(f"{out} is the checkpoint itself, which stays as it is; name another file with -o")
    return planned


def _expand(pattern: str) -> list[str]:
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return [pattern]
    found = sorted(glob.glob(str(Path(pattern).expanduser())))  # noqa: PTH207 (absolute patterns too)
    if not found:
        raise UserError(f"{pattern} matches no file")
    return found


def preview(planned: dict[str, Path], target: str, reading: Reading) -> list[str]:
    """What `run` would do, a line for each input, after reading all of them.

    Raises:
        UserError: an input cannot be read, or the target cannot hold it.
    """
    lines = []
    for name, out in planned.items():
        read = reading.load(name)
        converters.find(target).require_supported(read.architecture)
        origin = f"{read.origin.source} {read.origin.branch}".strip()
        lines.append(f"would write {out}: {read.architecture.name} ({read.id}) from {name} ({origin})")
    return lines


def run(planned: dict[str, Path], target: str, reading: Reading, verify: bool) -> list[dict[str, Any]]:
    """Convert all of `planned`; the certificates, each with its `input`.

    Raises:
        CheckFailed: after all were tried, where some were not written.
        UserError: at the first input that cannot be read or converted.
    """
    certificates, failures = [], []
    for name, out in planned.items():
        try:
            certificate = converters.convert(reading.load(name), target, out, verify)
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
    told = f"wrote {certificate['out']}: {certificate['tensors']} tensors"
    if not stages:
        return f"{told}, read back bit for bit; the outputs were not compared (--no-verify)"
    worst = max(stages, key=lambda stage: stage["relative"])
    return (
        f"{told}, all used by {certificate['network']}; outputs differ by at most {worst['relative']:.0e} "
        f"({worst['stage']}){'; with ' if certificate['fragments'] else ''}{', '.join(certificate['fragments'])}"
    )
