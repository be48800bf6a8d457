"""Networks of plain strided convolutions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

from torch import Tensor, nn

from cgh_bench.backbones.base import Architecture, chosen
from cgh_bench.networks.base import Backbone, Stage

STAGES = ("half", "quarter", "eighth")


@dataclass(frozen=True)
class PlainConvolutions(Architecture):
    """Three convolutions of stride 2; each has twice the channels of the one before."""

    BUILDS_ON_META: ClassVar[bool] = True

    name: str
    """`plain16` begins with 16 channels."""

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`."""
        return ("plain16", "plain32")

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return cls(name) if re.fullmatch(r"plain[1-9]\d*", name) else None

    def targets(self, feature: str) -> tuple[str, ...]:
        """A stage, or several joined by `+`; `layer4` is the last."""
        return chosen("stage", STAGES[-1] if feature == "layer4" else feature, STAGES)

    def build(self) -> "PlainBackbone":
        """The network, with torch's initial weights."""
        return PlainBackbone(self)


class PlainBackbone(Backbone):
    """What `PlainConvolutions` builds."""

    def __init__(self, architecture: PlainConvolutions) -> None:
        super().__init__()
        self.architecture = architecture
        channels = [3, *(int(architecture.name[5:]) * 2**number for number in range(len(STAGES)))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1) for inputs, outputs in pairwise(channels)
        )
        self.stages = {stage: Stage(channels[number], 2**number) for number, stage in enumerate(STAGES, start=1)}

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone`."""
        maps = {}
        for stage, convolution in zip(STAGES, self.convolutions, strict=True):
            images = convolution(images).relu()
            maps[stage] = images
        return images.mean(dim=(2, 3)), maps


FAMILIES = {"plain": PlainConvolutions}
