"""Loading a checkpoint by its name (see `names`): a file of any known origin, published weights, or a control."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import safetensors

from cgh_bench.checkpoint import FORMAT, Checkpoint, load_canonical, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.reading import hubs, names, recognition
from cgh_bench.reading.evidence import adjusted
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.recognition import Choices
from cgh_bench.reading.weights_file import open_weights


def load(name: str | Path, reference: Path | None = None, **choices: Unpack[Choices]) -> Checkpoint:
    """A checkpoint of any origin.

    Args:
        name: any of `names.FORMS`: a file, a Hugging Face folder, published weights (downloaded to their hub's cache
            unless they are there), or a control.
        reference: what the file's own model computed (see `reference_script`), which the checkpoint must compute, too.
        **choices: `source`, `branch`, `arch`, `settings`, `trust_pickle`, `trust_code`; see `Choices`.

    Raises:
        UserError: there is no such checkpoint, no origin or several fit, or the backbone is damaged or incomplete.
        CheckFailed: it computes something else than the reference.
    """
    if reference is not None:
        return proven(name, reference, **choices)[0]
    return _load(name, **choices)


def proven(name: str | Path, file: Path, **choices: Unpack[Choices]) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint of that name, which computes what the reference in `file` holds, and what was compared.

    Raises:
        UserError, CheckFailed: see `load`.
    """
    from cgh_bench.reading import reference

    read = _load(name, may_assume=True, **choices)

    def others() -> Iterator[tuple[str, Checkpoint]]:
        parsed = names.parse(str(name))
        if not isinstance(parsed, Path) or read.origin.source not in READERS:
            return
        opened = open_weights(parsed, choices.get("trust_pickle", False))
        recognised = recognition.recognise(opened, choices.get("source"), choices.get("branch"), choices.get("arch"))
        for other in recognised.networks:
            if other != read.origin.branch:
                settings = choices.get("settings", ())
                yield f"--branch {other}", recognition.checkpoint_of(opened, recognised, other, settings, True)

    return reference.certified(read, reference.read(file), others)


def _load(name: str | Path, may_assume: bool = False, **choices: Unpack[Choices]) -> Checkpoint:
    text, settings = str(name), choices.get("settings", ())
    parsed = names.parse(text)
    if isinstance(parsed, names.Control):
        control = random_checkpoint(parsed.arch, parsed.seed)
        return adjusted(replace(control, name=text) if text.startswith("control:") else control, settings)
    if isinstance(parsed, Path):
        is_told = choices.get("branch") or choices.get("arch") or choices.get("source") not in (None, "ours")
        if not is_told and _is_ours(parsed):
            return adjusted(load_canonical(parsed), settings)
        if not parsed.exists():
            raise names.absent(text)
        return recognition.read(parsed, may_assume, **choices)
    fetched = hubs.fetch(parsed, text, choices.get("trust_code", False))
    read = recognition.read_opened(fetched.open(choices.get("trust_pickle", False)), may_assume, **choices)
    return replace(read, name=text.partition("#")[0], origin=fetched.described(read.origin))


def _is_ours(path: Path) -> bool:
    """Whether it is a safetensors file of our format, as its header says."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except safetensors.SafetensorError:
        return False


def hub_settings(checkpoint: Checkpoint) -> list[str]:
    """The settings of a task that `transform=hub` stands for: the numbers, so that they are part of the protocol.

    Raises:
        UserError: the checkpoint's origin says nothing of a transform.
    """
    cut = checkpoint.origin.transform
    if cut is None:
        raise UserError(
            f"transform=hub: the origin of {checkpoint.name} does not state its resize and crop; set transform.resize "
            "and transform.crop"
        )
    values = {"resize": cut.resize, "crop": cut.crop, "interpolation": cut.interpolation, "squash": cut.squash}
    return [f"transform.{field}={value}" for field, value in values.items()]
