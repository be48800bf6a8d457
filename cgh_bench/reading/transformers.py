"""Reading a Hugging Face folder of any network of images by transformers itself."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cgh_bench.backbones.transformers import Transformers
from cgh_bench.core.errors import UserError
from cgh_bench.reading.candidate import Candidate, as_float32
from cgh_bench.reading.weights_file import WeightsFile

_HEADS = re.compile(
    r"(text_model|classifier|head|decoder|lm_head|logit_scale|logit_bias|visual_projection|text_projection|"
    r"(.*\.)?pooler\.dense|.*position_ids|.*relative_position_index|.*inv_freq|(.*\.)?mask_token)\b.*"
)
"""What whole models have beside the network of images."""


@dataclass(frozen=True)
class FoundTransformers(Candidate):
    """A network that transformers builds and fills."""

    architecture: Transformers | None

    def weights(self, file: WeightsFile) -> dict[str, Tensor]:
        """See `Candidate`."""
        assert self.architecture is not None
        if not file.path.is_dir():
            return {key: file.tensors[name] for key, name in self.names.items()}
        for key in self.names:
            if file.tensors[key].is_floating_point():
                as_float32(key, file.tensors[key])
        return _load(file, self.architecture)[0]


def find_transformers(file: WeightsFile, architecture: Transformers | None = None) -> list[Candidate]:
    """The network of the folder `file`, by its `config.json`, or in a file of ours; none if it is neither."""
    if architecture and not file.path.is_dir():
        return [FoundTransformers("", "transformers_model", {key: key for key in architecture.shapes}, architecture)]
    if not file.path.is_dir() or "config/model_type" not in file.facts:
        return []
    try:
        architecture = architecture or Transformers.of(json.loads((file.path / "config.json").read_text("utf-8")))
        _, loading = _load(file, architecture)
    except UserError as error:
        return [FoundTransformers("", "transformers_model", {}, None, str(error))]
    surplus = [key for key in loading["unexpected_keys"] if not _HEADS.match(key)]
    problem = ""
    if missing := sorted(loading["missing_keys"]):
        problem = f"{missing[0]} is missing ({len(missing)} of {architecture.name} are)"
    elif loading["mismatched_keys"]:
        problem = f"{sorted(map(str, loading['mismatched_keys']))[0]} is of another shape than in {architecture.name}"
    elif surplus:
        problem = f"it also has {surplus[0]}, which {architecture.name} does not have"
    ignored = set(loading["unexpected_keys"])
    names = {name: name for name in file.tensors if name not in ignored}
    return [FoundTransformers("", "transformers_model", names, None if problem else architecture, problem)]


def _load(file: WeightsFile, architecture: Transformers) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The library's own reading, and what it says of tensors that are missing, unexpected or of other shapes."""
    from transformers.utils import logging

    told_by: Any = logging  # its functions have no types
    shown, level = told_by.is_progress_bar_enabled(), told_by.get_verbosity()
    told_by.disable_progress_bar()
    told_by.set_verbosity_error()  # what it would warn of is told by this module
    kind: Any = type(architecture.skeleton.network)
    options = {"add_pooling_layer": False} if architecture.has_bert_pooling else {}
    try:
        network, loading = kind.from_pretrained(
            str(file.path),
            config=architecture.configuration,
            dtype="float32",
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{file.path}: transformers cannot load it: {str(error).splitlines()[0]}") from None
    finally:
        told_by.set_verbosity(level)
        if shown:
            told_by.enable_progress_bar()
    weights = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    return weights, loading
