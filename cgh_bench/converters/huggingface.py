"""Hugging Face: a folder for `AutoModel.from_pretrained` and `AutoImageProcessor.from_pretrained`, with a card."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench.backbones import resnet_names as naming
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet import STAGES
from cgh_bench.checkpoint import DESCRIPTION, Checkpoint, architecture_of, describe
from cgh_bench.converters import parity
from cgh_bench.converters.base import Converter
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.reading import vit_names

if TYPE_CHECKING:
    from torch import Tensor

_CARD = """---
library_name: transformers
tags: [image-feature-extraction, {kind}]
---
# {name}

A {arch} network without a classifier, converted by `cgh-bench convert`; its content hash is `{id}`.

- Origin: {source}{branch}; SHA-256 of the file that was read: `{sha256}`.
- Images: RGB, `(pixel * {scale:g} - mean) / std` with mean {mean} and std {std}.

```python
from transformers import AutoImageProcessor, AutoModel
processor, model = AutoImageProcessor.from_pretrained("{folder}"), AutoModel.from_pretrained("{folder}"{options})
```
"""


@dataclass(frozen=True)
class HuggingFace(Converter):
    """For transformers: a folder with config.json, model.safetensors, preprocessor_config.json and README.md."""

    BESIDE: ClassVar[str] = "nothing: config.json, preprocessor_config.json and README.md are in the folder"

    name: str = "huggingface"
    suffixes: tuple[str, ...] = ()

    def rename(self, key: str, architecture: Architecture) -> str:
        """Its name in files for our `key`; query, key and value of a ViT are `attn.q`, `.k` and `.v`."""
        return _NAMES[architecture.transformers_config()["model_type"]](key)

    def takes(self, family: type[Architecture]) -> bool:
        """See `Converter`."""
        return family.transformers_config is not Architecture.transformers_config

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what transformers cannot be."""
        if checkpoint.preprocessing.channel_order == "BGR":
            raise UserError(f"{checkpoint.name} expects BGR images, which transformers' processors do not support")
        checkpoint.architecture.transformers_config()

    def save(self, checkpoint: Checkpoint, path: Path) -> None:
        """See `Converter`."""
        import safetensors.torch

        path.mkdir(parents=True)
        if checkpoint.architecture.LIBRARY == "transformers":
            _save_as_it_was(checkpoint, path)
            return
        config = checkpoint.architecture.transformers_config()
        rename = _NAMES[config["model_type"]]
        weights = {rename(key): tensor.contiguous() for key, tensor in vit_names.split(checkpoint.weights).items()}
        with replacing(path / "model.safetensors") as temporary:
            safetensors.torch.save_file(weights, temporary, {"format": "pt"})
        config |= {"num_channels": 3, "dtype": "float32", DESCRIPTION: describe(checkpoint)}
        for name, document in (("config", config), ("preprocessor_config", _processor(checkpoint))):
            write_text(path / f"{name}.json", json.dumps(document, indent=2) + "\n")
        write_text(path / "README.md", _card(checkpoint, path.name, config["model_type"]))

    def require_installed(self) -> None:
        """See `Converter`."""
        parity.require_package("transformers")

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What transformers' network makes of RGB `pixels`."""
        return parity.library_outputs(self.name, "transformers", path, pixels)


def _save_as_it_was(checkpoint: Checkpoint, path: Path) -> None:
    """Let the library write its own network, then add what it does not know."""
    network: Any = checkpoint.backbone(copy=False).network
    network.save_pretrained(path)
    document = json.loads((path / "config.json").read_text(encoding="utf-8")) | {DESCRIPTION: describe(checkpoint)}
    write_text(path / "config.json", json.dumps(document, indent=2) + "\n")
    write_text(path / "preprocessor_config.json", json.dumps(_processor(checkpoint), indent=2) + "\n")
    write_text(path / "README.md", _card(checkpoint, path.name, document["model_type"]))


def network_outputs(path: Path, pixels: Tensor) -> parity.Outputs:
    """What transformers' network, built from the folder, makes of RGB `pixels`; in the process of `library`."""
    import torch

    from cgh_bench.networks.transformers import outputs
    from cgh_bench.reading.weights_file import open_weights

    started = time.monotonic()
    transformers = importlib.import_module("transformers")  # its types are partial
    seconds = time.monotonic() - started
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    options = _OPTIONS.get(config["model_type"], {})
    model, loading = transformers.AutoModel.from_pretrained(str(path), output_loading_info=True, **options)
    model.eval()
    processor = transformers.AutoImageProcessor.from_pretrained(str(path))
    as_is = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
    prepared = processor(images=list(pixels), **as_is)["pixel_values"]
    if architecture_of(config[DESCRIPTION]).LIBRARY == "transformers":
        with torch.inference_mode():
            stages = outputs(model, prepared)
        lacking, surplus = (sorted(loading[f"{kind}_keys"]) for kind in ("missing", "unexpected"))
        used = [key for key in open_weights(path).tensors if key not in surplus]
        account: dict[str, Any] = {"used": used, "unused": surplus, "missing": lacking}
    else:
        with torch.inference_mode():
            found = model(prepared, output_hidden_states=True)
        maps, network = found.hidden_states[1:], model.state_dict()
        if config["model_type"] == "resnet":
            stages = dict(zip(STAGES, maps, strict=True))
        else:
            stages = {f"block{number}": tokens for number, tokens in enumerate(maps, start=1)}
            stages["norm"] = found.last_hidden_state
            network = _by_their_files_names(network, f"{config['model_type']}_huggingface")
        account = parity.coverage(path / "model.safetensors", network)
    return parity.Outputs(
        {"input": prepared, **stages},
        f"{type(model).__module__}.{type(model).__name__}",
        {"transformers": transformers.__version__, "torch": torch.__version__},
        **account,
        seconds_of_import=seconds,
    )


_OPTIONS = {name: {"add_pooling_layer": False} for name in ("vit", "deit", "ijepa")}
"""`ViTModel` would add a pooling layer, whose weights no network has, and fill it at random."""


def _by_their_files_names(network: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """A network's tensors by the names in files: since version 5 its own are others.

    `Dinov2Model` always has a mask token, which only masked images use.
    """
    ours = vit_names.canonical_names(f"{family}_5")
    rename = vit_names.FAMILIES[family].rename
    named = {rename(ours[name]) if name in ours else name: tensor for name, tensor in network.items()}
    return {name: tensor for name, tensor in named.items() if name != "embeddings.mask_token"}


_NAMES: dict[str, Callable[[str], str]] = {
    "resnet": naming.huggingface,
    **{kind: vit_names.FAMILIES[f"{kind}_huggingface"].rename for kind in ("vit", "dinov2")},
}
"""How transformers' files name our tensors, by `model_type`; networks of its own are written by itself."""


def _processor(checkpoint: Checkpoint) -> dict[str, object]:
    given, architecture = checkpoint.preprocessing, checkpoint.architecture
    if architecture.transformers_config()["model_type"] != "resnet":
        size = dict(zip(("height", "width"), architecture.image_size, strict=True))
        resizing: dict[str, object] = {"image_processor_type": "ViTImageProcessor", "size": size}
    else:
        size = {"shortest_edge": 224}
        resizing = {"image_processor_type": "ConvNextImageProcessor", "size": size, "crop_pct": 0.875}
    return {
        **resizing,
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": given.input_range / 255,
        "do_normalize": True,
        "image_mean": list(given.mean),
        "image_std": list(given.std),
    }


def _card(checkpoint: Checkpoint, folder: str, kind: str) -> str:
    given, origin = checkpoint.preprocessing, checkpoint.origin
    return _CARD.format(
        kind=kind,
        options=", add_pooling_layer=False" if kind in _OPTIONS else "",
        name=checkpoint.name,
        arch=checkpoint.architecture.name,
        id=checkpoint.id,
        source=origin.source,
        branch=f" ({origin.branch})" if origin.branch else "",
        sha256=origin.sha256 or "none",
        scale=given.input_range / 255,
        mean=list(given.mean),
        std=list(given.std),
        folder=folder,
    )


CONVERTERS = {"huggingface": HuggingFace()}
