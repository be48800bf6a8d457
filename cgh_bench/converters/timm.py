"""timm: a flat file for `timm.create_model(…, checkpoint_path=…)`, and the arguments of that call beside it."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench.backbones.base import Architecture
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters import parity
from cgh_bench.converters.flat import FlatConverter
from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Timm(FlatConverter):
    """For timm: names unchanged; ResNets with a deep stem, vision transformers, and all timm networks."""

    BESIDE: ClassVar[str] = "`OUT.config.json`: the arguments of `timm.create_model`"

    name: str = "timm"
    suffixes: tuple[str, ...] = (".safetensors", ".pth")

    def takes(self, family: type[Architecture]) -> bool:
        """See `Converter`."""
        return family.timm_arguments is not Architecture.timm_arguments

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what `timm.create_model` cannot build."""
        checkpoint.architecture.timm_arguments()
        if checkpoint.preprocessing.channel_order == "BGR":
            raise UserError(f"{checkpoint.name} expects BGR images, which timm's configuration cannot express")

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """The arguments of `timm.create_model`, as JSON."""
        given = checkpoint.preprocessing
        mean, std = ([value / given.input_range for value in values] for values in (given.mean, given.std))
        arguments: dict[str, Any] = {
            "num_classes": 0,
            "checkpoint_path": path.name,
            "pretrained_cfg_overlay": {"mean": mean, "std": std, "url": "", "hf_hub_id": None},
            **checkpoint.architecture.timm_arguments(),
        }
        return {f"{path.name}.config.json": json.dumps(arguments, indent=2) + "\n"}

    def require_installed(self) -> None:
        """See `Converter`."""
        parity.require_package("timm")

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What timm's network makes of RGB `pixels`."""
        return parity.library_outputs(self.name, "timm", path, pixels)


def network_outputs(path: Path, pixels: Tensor) -> parity.Outputs:
    """What timm's network, built from the files, makes of RGB `pixels`; in the process of `library`."""
    import torch
    from torchvision.transforms import v2

    from cgh_bench.networks.timm import outputs

    started = time.monotonic()
    timm = importlib.import_module("timm")  # its types are partial
    seconds = time.monotonic() - started
    arguments = json.loads(path.with_name(f"{path.name}.config.json").read_text(encoding="utf-8"))
    model = timm.create_model(**{**arguments, "checkpoint_path": str(path)}).eval()
    settings = timm.data.resolve_data_config({}, model=model)
    prepared = v2.functional.normalize(pixels.float() / 255, settings["mean"], settings["std"])
    with torch.inference_mode():
        stages = outputs(model, prepared)
    return parity.Outputs(
        {"input": prepared, **stages},
        f"{type(model).__module__}.{type(model).__name__}",
        {"timm": timm.__version__, "torch": torch.__version__},
        **parity.coverage(path, model.state_dict()),
        seconds_of_import=seconds,
    )


CONVERTERS = {"timm": Timm()}
