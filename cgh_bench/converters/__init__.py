"""Writing a checkpoint for other frameworks, with proof. A converter is an entry of `CONVERTERS` in a file here."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from cgh_bench import __version__
from cgh_bench.backbones.base import Architecture
from cgh_bench.checkpoint import Checkpoint, describe
from cgh_bench.converters import parity
from cgh_bench.core.errors import CheckFailed, UserError, unknown
from cgh_bench.core.files import sha256, write_text
from cgh_bench.core.registry import registered

FORMAT = "cgh-bench-certificate/1"


class Converter(Protocol):
    """One target. Total, injective, and read back bit for bit, or UserError."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File endings that it writes; the first is the usual one. Empty for a folder."""
        ...

    @property
    def is_folder(self) -> bool:
        """Whether it writes a folder, not a file."""
        ...

    def rename(self, key: str, architecture: Architecture) -> str:
        """The target's name for our `key`."""
        ...

    def require_supported(self, architecture: Architecture) -> None:
        """Raise UserError for what the target cannot build."""
        ...

    def write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the weights, whole or not at all."""
        ...

    def read(self, path: Path) -> Checkpoint:
        """Read weights of the target's layout, ours or its own."""
        ...

    def fragments(self, checkpoint: Checkpoint, path: Path) -> Mapping[str, str]:
        """The configuration that the weights at `path` imply, text by file name, to be written beside them."""
        ...

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What the target's own network, built from the files, makes of RGB `pixels` (B, 3, H, W), uint8."""
        ...


def find(name: str) -> Converter:
    """The converter to the target of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    known: dict[str, Converter] = registered("cgh_bench.converters", "CONVERTERS")
    if name not in known:
        raise unknown("target", name, known)
    return known[name]


def convert(checkpoint: Checkpoint, target: str, out: Path, verify: bool = True) -> dict[str, Any]:
    """Write `checkpoint` for `target` to `out`, with its configuration fragments and its certificate beside it.

    Everything is written to a hidden folder first and moved into place after it has been read back, bit for bit, and
    (with `verify`) after the target's own network has computed the same from it.

    Returns:
        The certificate, as in `OUT.certificate.json`.

    Raises:
        UserError: the target is unknown, cannot hold this architecture, or is not installed.
        CheckFailed: the target computes something else. Then nothing stands at `out`, and the certificate says why.
    """
    converter = find(target)
    _require_writable(converter, out)
    converter.require_supported(checkpoint.architecture)
    out.parent.mkdir(parents=True, exist_ok=True)
    certificate_path = out.with_name(f"{out.name}.certificate.json")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        staged = Path(folder, out.name)
        converter.write(checkpoint, staged)
        fragments = converter.fragments(checkpoint, staged)
        for name, text in fragments.items():
            write_text(staged.with_name(name), text)
        measured, complaint = _examine(converter, checkpoint, staged, verify)
        certificate = {
            "format": FORMAT,
            "verdict": "failed" if complaint else "same outputs" if verify else "not verified",
            "why": complaint,
            "target": target,
            "file": out.name,
            "sha256": _hash(staged),
            "checkpoint": {"id": checkpoint.id, **_brief(checkpoint)},
            "tensors": len(checkpoint.weights),
            "read_back": "bit for bit",
            **measured,
            "fragments": list(fragments),
            "cgh_bench": __version__,
            "seconds": round(time.monotonic() - started, 2),
        }
        if complaint:
            _remove(out)
            write_text(certificate_path, json.dumps(certificate, indent=1) + "\n")
            raise CheckFailed(f"{out} was not written: {complaint}; see {certificate_path}")
        _move_into_place(staged, out, list(fragments))
        write_text(certificate_path, json.dumps(certificate, indent=1) + "\n")
    return certificate


def _examine(converter: Converter, checkpoint: Checkpoint, staged: Path, verify: bool) -> tuple[dict[str, object], str]:
    """The measured part of the certificate, and what is wrong, if anything."""
    if converter.read(staged).id != checkpoint.id:
        return {}, f"what was read back from the {converter.name} file is not what was written"
    if not verify:
        return {}, ""
    pixels = parity.probe_images(*checkpoint.architecture.image_size)
    try:
        target = converter.outputs(staged, pixels)
        differences = parity.compare(parity.source_outputs(checkpoint, pixels).stages, target.stages)
    except CheckFailed as failure:
        return {}, str(failure)
    return parity.as_json(target, differences), parity.verdict(target, differences)


def _require_writable(converter: Converter, out: Path) -> None:
    if converter.is_folder and out.is_file():
        raise UserError(f"{out} is a file; {converter.name} is written as a folder: name another place")
    if not converter.is_folder and out.suffix not in converter.suffixes:
        raise UserError(f"{out}: {converter.name} is written to {' or '.join(converter.suffixes)}; end the name so")
    if not converter.is_folder and out.is_dir():
        raise UserError(f"{out} is a folder; name a file to write")


def _brief(checkpoint: Checkpoint) -> dict[str, Any]:
    """The description without the long list of ignored tensors."""
    description: dict[str, Any] = json.loads(describe(checkpoint))
    description["origin"]["ignored"] = len(checkpoint.origin.ignored)
    return description


def _hash(path: Path) -> str | dict[str, str]:
    if path.is_dir():
        return {file.name: sha256(file) for file in sorted(path.iterdir())}
    return sha256(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move_into_place(staged: Path, out: Path, fragments: list[str]) -> None:
    for name in fragments:
        staged.with_name(name).replace(out.with_name(name))
    if staged.is_dir():
        _remove(out)
    staged.replace(out)
