"""A conversion target in one file: a program whose network keeps a torchvision ResNet under `encoder.`."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet import STAGES, ResNet, require_resnet
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters import parity
from cgh_bench.converters.flat import FlatConverter, input_of, preprocessing_fragment
from cgh_bench.reading.weights_file import open_weights


class Wrapped(nn.Module):
    """The target's own network; yours would be imported."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = torchvision.models.get_model(name, weights=None)
        self.encoder.fc = nn.Identity()


@dataclass(frozen=True)
class ToWrapped(FlatConverter):
    """For our own training code."""

    name: str = "wrapped"
    suffixes: tuple[str, ...] = (".pth",)

    def rename(self, key: str, architecture: Architecture) -> str:
        """Its name for our `key`: total and injective."""
        return f"encoder.{key}"

    def takes(self, family: type[Architecture]) -> bool:
        """For `list backbones`."""
        return issubclass(family, ResNet)

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what the target cannot build."""
        require_resnet(checkpoint.architecture, self.name)

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """What the target must be told beside the weights."""
        return {f"{path.name}.preprocessing.json": preprocessing_fragment(checkpoint)}

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What the target's own network makes of RGB `pixels`: the certificate compares it with ours."""
        weights = open_weights(path).tensors
        name, prepared = input_of(path.with_name(f"{path.name}.preprocessing.json"), pixels)
        model = Wrapped(name).eval()
        model.load_state_dict(weights)
        extractor = create_feature_extractor(model.encoder, {stage: stage for stage in STAGES})
        with torch.inference_mode():
            stages = {"input": prepared, **extractor(prepared)}
        return parity.Outputs(stages, "Wrapped", {"torch": torch.__version__}, tuple(weights))


CONVERTERS = {"wrapped": ToWrapped()}
