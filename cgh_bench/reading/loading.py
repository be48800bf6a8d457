"""Loading a checkpoint by its name: a file of any known origin, or a control."""

from pathlib import Path

import safetensors

from cgh_bench.checkpoint import FORMAT, Checkpoint, load_canonical, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.reading import recognition


def load(
    path_or_name: str | Path, source: str | None = None, branch: str | None = None, trust_pickle: bool = False
) -> Checkpoint:
    """A checkpoint of any origin.

    Args:
        path_or_name: a file of any known origin, a Hugging Face folder, or the control `random:ARCH[:SEED]`.
        source: take the file for this origin (`cgh-bench list sources`) instead of finding out.
        branch: which network of a file that has several (student, teacher, …); the origin's default otherwise.
        trust_pickle: let a pickled file run the code that it names.

    Raises:
        UserError: there is no such file, no origin or several fit, or the backbone is damaged or incomplete.
    """
    name = str(path_or_name)
    if name.startswith("random:"):
        return _control(name)
    path = Path(path_or_name).expanduser()
    if source in (None, "ours") and branch is None and _is_ours(path):
        return load_canonical(path)
    return recognition.read(path, source, branch, trust_pickle)


def _control(name: str) -> Checkpoint:
    match name.split(":"):
        case ["random", arch]:
            return random_checkpoint(arch)
        case ["random", arch, seed] if seed.isdigit():
            return random_checkpoint(arch, int(seed))
    raise UserError(f"{name} is not a valid control; accepted: random:ARCH or random:ARCH:SEED, say random:resnet50:1")


def _is_ours(path: Path) -> bool:
    """Whether it is a safetensors file of our format, as its header says."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except safetensors.SafetensorError:
        return False
