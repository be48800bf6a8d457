"""Loading a checkpoint by its name (see `names`): a file of any known origin, published weights, or a control."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import safetensors

from cgh_bench.checkpoint import FORMAT, Checkpoint, load_canonical, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.reading import hubs, names, recognition
from cgh_bench.reading.evidence import adjusted


def load(  # noqa: PLR0913, PLR0917 (each is an independent choice)
    name: str | Path,
    source: str | None = None,
    branch: str | None = None,
    trust_pickle: bool = False,
    trust_code: bool = False,
    arch: str | None = None,
    settings: Sequence[str] = (),
) -> Checkpoint:
    """A checkpoint of any origin.

    Args:
        name: any of `names.FORMS`: a file, a Hugging Face folder, published weights (downloaded to their hub's cache
            unless they are there), or a control.
        source: take the weights for this origin (`cgh-bench list sources`) instead of finding out.
        branch: which network of a file that has several (student, teacher, …); the origin's default otherwise.
        trust_pickle: let a pickled file run the code that it names.
        trust_code: let the code of a `hub:` repository run.
        arch: the architecture of a file that does not say it, by timm's name.
        settings: `NAME=VALUE` of properties that no tensor tells and the file does not say (`stem.padding=2`).

    Raises:
        UserError: there is no such checkpoint, no origin or several fit, or the backbone is damaged or incomplete.
    """
    text = str(name)
    parsed = names.parse(text)
    if isinstance(parsed, names.Control):
        control = random_checkpoint(parsed.arch, parsed.seed)
        return adjusted(replace(control, name=text) if text.startswith("control:") else control, settings)
    if isinstance(parsed, Path):
        if source in (None, "ours") and branch is None and arch is None and _is_ours(parsed):
            return adjusted(load_canonical(parsed), settings)
        if not parsed.exists():
            raise names.absent(text)
        return recognition.read(parsed, source, branch, trust_pickle, arch, settings)
    fetched = hubs.fetch(parsed, text, trust_code)
    read = recognition.read_opened(fetched.open(trust_pickle), source, branch, arch, settings)
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
            f"transform=hub: the origin of {checkpoint.name} says nothing of how it cuts images; set transform.resize "
            "and transform.crop"
        )
    values = {"resize": cut.resize, "crop": cut.crop, "interpolation": cut.interpolation, "squash": cut.squash}
    return [f"transform.{field}={value}" for field, value in values.items()]
