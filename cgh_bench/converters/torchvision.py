"""torchvision: a flat state dict without the classifier, for `model.fc = nn.Identity(); model.load_state_dict(…)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.backbones.resnet import STAGES, ResNet, require_resnet
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters import parity
from cgh_bench.converters.flat import FlatConverter, input_of, preprocessing_fragment
from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Torchvision(FlatConverter):
    """For torchvision's own ResNets: names unchanged."""

    BESIDE: ClassVar[str] = "`OUT.preprocessing.json`"
    FAMILY: ClassVar = ResNet

    name: str = "torchvision"
    suffixes: tuple[str, ...] = (".safetensors", ".pth", ".pt")

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what torchvision cannot build."""
        architecture = require_resnet(checkpoint.architecture, self.name)
        if architecture.stem != "imagenet" or architecture.stride_in_1x1:
            raise UserError(
                f"torchvision cannot build {architecture}; it has the imagenet stem, and the stride in the 3x3"
            )

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """The preprocessing as JSON."""
        return {f"{path.name}.preprocessing.json": preprocessing_fragment(checkpoint)}

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What torchvision's network makes of RGB `pixels`."""
        import torch
        import torchvision
        from torchvision.models.feature_extraction import create_feature_extractor

        from cgh_bench.networks.base import without_memory
        from cgh_bench.reading.weights_file import open_weights

        weights = open_weights(path).tensors
        described, prepared = input_of(path.with_name(f"{path.name}.preprocessing.json"), pixels)
        with without_memory():
            model = torchvision.models.get_model(described, weights=None)
        model.fc = torch.nn.Identity()
        model.load_state_dict(weights, assign=True)
        extractor = create_feature_extractor(model.eval(), {stage: stage for stage in STAGES})
        with torch.inference_mode():
            stages = {"input": prepared, **extractor(prepared)}
        versions = {"torchvision": torchvision.__version__, "torch": torch.__version__}
        return parity.Outputs(stages, f"torchvision.models.{described}", versions, tuple(weights))


CONVERTERS = {"torchvision": Torchvision()}
