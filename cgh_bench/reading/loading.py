"""Loading a checkpoint by its name (see `names`): a file of any known origin, published weights, or a control."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors

from cgh_bench.checkpoint import FORMAT, Checkpoint, load_canonical, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.reading import hubs, names, recognition
from cgh_bench.reading.evidence import adjusted
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.weights_file import open_weights


def load(  # noqa: PLR0913, PLR0917 (each is an independent choice)
    name: str | Path,
    source: str | None = None,
    branch: str | None = None,
    trust_pickle: bool = False,
    trust_code: bool = False,
    arch: str | None = None,
    settings: Sequence[str] = (),
    reference: Path | None = None,
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
        reference: what the file's own model computed (see `reference_script`), which the checkpoint must compute, too.

    Raises:
        UserError: there is no such checkpoint, no origin or several fit, or the backbone is damaged or incomplete.
        CheckFailed: it computes something else than the reference.
    """
    how = {"trust_pickle": trust_pickle, "trust_code": trust_code}
    if reference is not None:
        return proven(name, reference, source, branch, arch, settings, **how)[0]
    return _load(name, source, branch, arch, settings, **how)


def proven(
    name: str | Path,
    file: Path,
    source: str | None = None,
    branch: str | None = None,
    arch: str | None = None,
    settings: Sequence[str] = (),
    **how: bool,
) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint of that name, which computes what the reference in `file` holds, and what was compared.

    Raises:
        UserError, CheckFailed: see `load`.
    """
    from cgh_bench.reading import reference

    read = _load(name, source, branch, arch, settings, may_assume=True, **how)

    def others() -> Iterator[tuple[str, Checkpoint]]:
        parsed = names.parse(str(name))
        if not isinstance(parsed, Path) or read.origin.source not in READERS:
            return
        opened = open_weights(parsed, how["trust_pickle"])
        recognised = recognition.recognise(opened, source, branch, arch)
        for other in recognised.networks:
            if other != read.origin.branch:
                found = recognition.checkpoint_of(opened, recognised, other, settings, may_assume=True)
                yield f"--branch {other}", found

    return reference.certified(read, reference.read(file), others)


def _load(  # noqa: PLR0913, PLR0917 (as `load`)
    name: str | Path,
    source: str | None,
    branch: str | None,
    arch: str | None,
    settings: Sequence[str],
    trust_pickle: bool = False,
    trust_code: bool = False,
    may_assume: bool = False,
) -> Checkpoint:
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
        return recognition.read(parsed, source, branch, trust_pickle, arch, settings, may_assume)
    fetched = hubs.fetch(parsed, text, trust_code)
    read = recognition.read_opened(fetched.open(trust_pickle), source, branch, arch, settings, may_assume)
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
