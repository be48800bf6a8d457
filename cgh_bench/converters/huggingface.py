"""Hugging Face: a folder for `AutoModel.from_pretrained` and `AutoImageProcessor.from_pretrained`, with a card."""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from cgh_bench import naming, parity, recognition
from cgh_bench.backbone import STAGES, Architecture, Backbone
from cgh_bench.checkpoint import Checkpoint, describe
from cgh_bench.converters.packages import require_package
from cgh_bench.errors import UserError
from cgh_bench.files import write_text
from cgh_bench.weights_file import DESCRIPTION

_CARD = """---
library_name: transformers
tags: [image-feature-extraction, resnet]
---
# {name}

A {arch} trunk without a classifier, converted by `cgh-bench convert`; its content hash is `{id}`.

- Origin: {source}{branch}; SHA-256 of the file that was read: `{sha256}`.
- Images: RGB, `(pixel * {scale:g} - mean) / std` with mean {mean} and std {std}.

```python
from transformers import AutoImageProcessor, AutoModel
processor, model = AutoImageProcessor.from_pretrained("{folder}"), AutoModel.from_pretrained("{folder}")
```
"""


@dataclass(frozen=True)
class HuggingFace:
    """For transformers: a folder with config.json, model.safetensors, preprocessor_config.json and README.md."""

    name: str = "huggingface"
    suffixes: tuple[str, ...] = ()
    is_folder: bool = True

    def rename(self, key: str, architecture: Architecture) -> str:
        """Its name for our `key`, in `ResNetModel`."""
        return naming.huggingface(key)

    def require_supported(self, architecture: Architecture) -> None:
        """Refuse what `ResNetModel` cannot be."""
        if architecture.stem != "imagenet" or not architecture.name.startswith("resnet"):
            raise UserError(f"transformers' ResNet cannot be {architecture}; accepted: resnet18 to 152, imagenet stem")

    def write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the folder."""
        self.require_supported(checkpoint.architecture)
        if checkpoint.preprocessing.channel_order == "BGR":
            raise UserError(f"{checkpoint.name} expects BGR images, which transformers' image processors cannot make")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            staged = Path(folder, path.name)
            staged.mkdir()
            weights = {naming.huggingface(key): tensor.contiguous() for key, tensor in checkpoint.weights.items()}
            safetensors.torch.save_file(weights, staged / "model.safetensors", {"format": "pt"})
            for name, document in (("config", _config(checkpoint)), ("preprocessor_config", _processor(checkpoint))):
                write_text(staged / f"{name}.json", json.dumps(document, indent=2) + "\n")
            write_text(staged / "README.md", _card(checkpoint, path.name))
            if path.is_dir():
                shutil.rmtree(path)
            staged.replace(path)

    def read(self, path: Path) -> Checkpoint:
        """Read it back, or a folder of transformers' own."""
        return recognition.read(path, self.name)

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """Nothing beside it: all is in the folder."""
        return {}

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What transformers' network makes of RGB `pixels`."""
        started = time.monotonic()
        transformers = require_package("transformers")
        seconds = time.monotonic() - started
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model = transformers.AutoModel.from_pretrained(str(path)).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(str(path))
        prepared = processor(images=list(pixels), do_resize=False, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            maps = model(prepared, output_hidden_states=True).hidden_states[1:]
        return parity.Outputs(
            {"input": prepared, **dict(zip(STAGES, maps, strict=True))},
            f"{type(model).__module__}.{type(model).__name__}",
            {"transformers": transformers.__version__, "torch": torch.__version__},
            **parity.coverage(path / "model.safetensors", model.state_dict()),
            seconds_of_import=seconds,
        )


def _config(checkpoint: Checkpoint) -> dict[str, object]:
    """Source of the fields: transformers' configuration_resnet.py."""
    architecture = checkpoint.architecture
    with torch.device("meta"):
        trunk = Backbone(architecture)
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": list(trunk.channels.values()),
        "depths": [len(getattr(trunk, stage)) for stage in STAGES],
        "layer_type": "bottleneck" if architecture.has_bottlenecks else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": architecture.stride_in_1x1,
        "dtype": "float32",
        DESCRIPTION: describe(checkpoint),
    }


def _processor(checkpoint: Checkpoint) -> dict[str, object]:
    given = checkpoint.preprocessing
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "crop_pct": 0.875,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": given.input_range / 255,
        "do_normalize": True,
        "image_mean": list(given.mean),
        "image_std": list(given.std),
    }


def _card(checkpoint: Checkpoint, folder: str) -> str:
    given, origin = checkpoint.preprocessing, checkpoint.origin
    return _CARD.format(
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
