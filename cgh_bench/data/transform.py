"""How an image is cut before the checkpoint's preprocessing, every number a field; importing it loads no torch."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EvalTransform:
    """Deterministic: resize the short side, cut out the centre, scale to [0, 1]. `None` leaves that step out."""

    resize: int | None = 256
    """Pixels of the short side."""
    crop: int | None = 224
    """Pixels of the square that is cut out of the centre."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """With antialiasing. DINO's kNN uses bicubic, torchvision's and MoCo's linear evaluation bilinear."""
    squash: bool = later(False)
    """Resize both sides to `resize`, whatever the shape of the image (DINOv3)."""
    longest: bool = later(False)
    """Make the long side at most `resize` instead, never larger than it is: Pillow's `thumbnail` (DINO's retrieval)."""

    def __post_init__(self) -> None:
        if any(side is not None and side < 1 for side in (self.resize, self.crop)):
            raise UserError(f"resize {self.resize} and crop {self.crop} must be at least 1 pixel, or none")
        if self.longest and (self.resize is None or self.crop is not None or self.squash):
            raise UserError("longest needs resize, without crop or squash")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise UserError(
                f"crop {self.crop} is larger than the resized image {self.resize}; set crop={self.resize} or less"
            )

    @property
    def bytes(self) -> int:
        """Bytes of an image in float32; where sizes are kept, as if it were 512 pixels wide and high."""
        return 3 * 4 * (self.crop or self.resize or 512) ** 2

    def __call__(self, image: "Tensor") -> "Tensor":
        """`image` (3, H, W) uint8 to (3, crop, crop) float32 in [0, 1]."""
        return to_unit(self.cut(image))

    def cut(self, image: "Tensor") -> "Tensor":
        """The same, still uint8."""
        from PIL import Image
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        if self.longest:
            thumbnail = F.to_pil_image(image)
            thumbnail.thumbnail((self.resize, self.resize), Image.Resampling.LANCZOS)
            return F.pil_to_tensor(thumbnail)
        if self.resize is not None:
            mode = InterpolationMode(self.interpolation)
            size = [self.resize] * (2 if self.squash else 1)
            image = F.resize(image, size, interpolation=mode, antialias=True)
        if self.crop is not None:
            image = F.center_crop(image, [self.crop, self.crop])
        return image


AS_IS = EvalTransform(resize=None, crop=None)
"""For images that are all stored at the size of evaluation."""
IMAGENET_KNN = EvalTransform(256, 224, "bicubic")
"""facebookresearch/dino eval_knn.py; of linear probes on cached features too, so that both read the same features."""
IMAGENET_LINEAR = EvalTransform(256, 224, "bilinear")
"""facebookresearch/moco main_lincls.py."""
TRANSFER = EvalTransform(224, 224, "bicubic")
"""SimCLR (https://arxiv.org/abs/2002.05709, B.8.1) and BYOL (https://arxiv.org/abs/2006.07733, D.1) for other sets."""


@dataclass(frozen=True)
class Crop:
    """A random part of the image, resized and perhaps mirrored: torchvision's RandomResizedCrop and horizontal flip."""

    size: int = 224
    """Pixels of its side."""
    area: tuple[float, float] = (0.08, 1.0)
    """Shares of the image; its width over its height is between 3/4 and 4/3."""
    mirrored: float = 0.5
    """Probability."""
    interpolation: Literal["bilinear", "bicubic"] = later("bilinear")
    """With antialiasing."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.area[0] <= self.area[1] <= 1 or not 0 <= self.mirrored <= 1:
            raise UserError(f"{self}: size must be at least 1, area two increasing fractions, mirrored a probability")

    def __call__(self, image: "Tensor") -> "Tensor":
        """`image` (3, H, W) uint8 to (3, size, size) float32 in [0, 1], drawing from torch's global generator."""
        return to_unit(self.cut(image))

    def cut(self, image: "Tensor") -> "Tensor":
        """The same, still uint8."""
        return self._transform(image)

    @cached_property
    def _transform(self) -> Any:
        from torchvision.transforms import v2

        mode = v2.InterpolationMode(self.interpolation)
        part = v2.RandomResizedCrop(self.size, scale=self.area, interpolation=mode, antialias=True)
        return v2.Compose([part, v2.RandomHorizontalFlip(self.mirrored)])


IMAGENET_CROP = Crop()
BICUBIC_CROP = Crop(interpolation="bicubic")


def to_unit(pixels: "Tensor") -> "Tensor":
    """Pixels in uint8 to float32 in [0, 1]."""
    import torch
    from torchvision.transforms.v2.functional import to_dtype

    return to_dtype(pixels, torch.float32, scale=True)
