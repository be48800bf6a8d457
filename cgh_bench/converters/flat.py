"""One flat dictionary of tensors in a file, with the checkpoint's description where loaders do not trip over it.

In `.safetensors` the description is in the header's metadata; in `.pth` it is in the dictionary's `_metadata`, where
PyTorch keeps the versions of modules and looks up nothing but their names.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from cgh_bench.backbones.base import Architecture
from cgh_bench.checkpoint import Checkpoint, architecture_of, describe, from_description
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing
from cgh_bench.reading import recognition
from cgh_bench.reading.weights_file import DESCRIPTION, open_weights

Rename = Callable[[str, Architecture], str]
"""A framework's name for our key, in a network of that architecture."""


def write_flat(checkpoint: Checkpoint, path: Path, rename: Rename) -> None:
    """Write the network under the names that `rename` gives, to a `.safetensors`, `.pth` or `.pt` file."""
    state = OrderedDict(
        (rename(key, checkpoint.architecture), tensor.contiguous()) for key, tensor in checkpoint.weights.items()
    )
    assert len(state) == len(checkpoint.weights), "two tensors got one name"
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "pt", DESCRIPTION: describe(checkpoint)}
            safetensors.torch.save_file(dict(state), temporary, metadata)
        else:
            state._metadata = {DESCRIPTION: describe(checkpoint)}  # type: ignore[attr-defined]
            with temporary.open("wb") as file:
                torch.save(state, file)


def read_flat(path: Path, rename: Rename, source: str) -> Checkpoint:
    """Read back what `write_flat` wrote, bit for bit; a file without our description is read as of the origin `source`.

    Raises:
        UserError: other tensors than the description says, or not readable.
    """
    file = open_weights(path)
    if DESCRIPTION not in file.facts:
        return recognition.read(path, source)
    described = architecture_of(file.facts[DESCRIPTION])
    ours = {rename(key, described): key for key in described.shapes}
    unknown = [name for name in file.tensors if name not in ours]
    if unknown:
        raise UserError(f"{path} has {unknown[0]}, which its description does not; convert it again")
    weights = {ours[name]: tensor for name, tensor in file.tensors.items()}
    return from_description(file.facts[DESCRIPTION], weights)
