"""The deterministic transform of evaluation, its every number a field."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cgh_bench.core.errors import UserError


@dataclass(frozen=True)
class EvalTransform:
    """Resize the short side, cut out the centre, scale to [0, 1]. `None` leaves that step out."""

    resize: int | None = 256
    """Pixels of the short side."""
    crop: int | None = 224
    """Pixels of the square that is cut out of the centre."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """With antialiasing. DINO's kNN uses bicubic, torchvision's and MoCo's linear evaluation bilinear."""

    def __post_init__(self) -> None:
        if any(side is not None and side < 1 for side in (self.resize, self.crop)):
            raise UserError(f"resize {self.resize} and crop {self.crop} must be at least 1 pixel, or none")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise UserError(f"crop {self.crop} is larger than the resized image {self.resize}; make it at most that")

    def __call__(self, image: Tensor) -> Tensor:
        """`image` (3, H, W) uint8 to (3, crop, crop) float32 in [0, 1]."""
        pixels: Tensor = F.to_dtype(self.cut(image), torch.float32, scale=True)
        return pixels

    def cut(self, image: Tensor) -> Tensor:
        """The same, still uint8."""
        if self.resize is not None:
            mode = InterpolationMode(self.interpolation)
            image = F.resize(image, [self.resize], interpolation=mode, antialias=True)
        if self.crop is not None:
            image = F.center_crop(image, [self.crop, self.crop])
        return image


AS_IS = EvalTransform(resize=None, crop=None)
"""For images that are all stored at the size of evaluation."""
IMAGENET_KNN = EvalTransform(256, 224, "bicubic")
"""facebookresearch/dino eval_knn.py."""
IMAGENET_LINEAR = EvalTransform(256, 224, "bilinear")
"""facebookresearch/moco main_lincls.py."""
TRANSFER = EvalTransform(224, 224, "bicubic")
"""SimCLR (https://arxiv.org/abs/2002.05709, B.8.1) and BYOL (https://arxiv.org/abs/2006.07733, D.1) for other sets."""
