"""Random views of images: every number a field, every draw a function of the seed, computed for a whole batch at once.

Source of the operations and their order: MoCo v2 (Chen et al., arXiv 2003.04297) and SimCLR (arXiv 2002.05709), in the
definitions of torchvision's transforms (RandomResizedCrop, ColorJitter, RandomGrayscale) and Pillow's GaussianBlur.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain import colour

CROP_ATTEMPTS = 10
"""As torchvision: the first of ten boxes that fits inside the image, else the largest centred one."""
FIRST_DRAWS = 2 * CROP_ATTEMPTS + 16
DRAWS = FIRST_DRAWS + 1
"""Uniform numbers that one view of one image may use; those past the first are drawn apart, so that they, which came
later, leave the first as they were."""


PIXELS_AT_ONCE = 2**19
"""Of a view: tensors of more are given back to the system, and fetched and cleared by it again, in every operation."""
BLOCK, REACH = 64, 4.5
"""Columns of a blur that are computed together, and standard deviations beyond which a Gaussian (4e-5) is nothing."""


@dataclass(frozen=True)
class Augment:
    """How one view is made, in this order: crop, mirror and turn; jitter of colours; grey; blur; solarisation."""

    size: int
    """Pixels of the square view."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Share of the image's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height; the logarithm is uniform."""
    flip: float = 0.5
    """Probability of a mirrored view."""
    rotation_degrees: float = 0.0
    """Uniform up to this much each way; pixels from outside the image repeat its edge."""
    jitter: float = 0.0
    """Probability of the four colour changes below, which come in random order."""
    brightness: float = 0.0
    """Factor uniform in `1 ± brightness`, as the next two."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Shift uniform in `± hue` turns of the colour circle."""
    grey: float = 0.0
    """Probability of a view without colour."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Pixels of the view."""
    solarize: float = later(0.0)
    """Probability that values above a half are turned into one minus themselves."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is a probability; it must be within 0 and 1")
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"{name} {low}, {high} must be two numbers above zero, the smaller first")
        if self.crop_area[1] > 1 or self.size < 1:
            raise UserError(f"crop_area {self.crop_area} must be at most 1 and size {self.size} at least 1")

    def __call__(self, images: Sequence[Tensor], uniforms: Tensor) -> Tensor:
        """Views (B, 3, size, size) float32 in [0, 1] of B `images` (3, H, W) uint8.

        `uniforms` (B, DRAWS) in [0, 1) decide everything.
        """
        many = max(1, PIXELS_AT_ONCE // self.size**2)
        if len(images) <= many:
            return self._views(images, uniforms)
        views = torch.empty(len(images), 3, self.size, self.size)
        for start in range(0, len(images), many):
            some = slice(start, start + many)
            views[some] = self._views(images[some], uniforms[some])
        return views

    def _views(self, images: Sequence[Tensor], uniforms: Tensor) -> Tensor:
        draws = iter(uniforms.unbind(dim=1))
        boxes = self._boxes(images, draws)
        mirrored = next(draws) < self.flip
        turn = (2 * next(draws) - 1) * math.radians(self.rotation_degrees)
        if len({image.shape for image in images}) == 1 and max(images[0].shape[1:]) <= self.size:
            views = _sample(torch.stack(list(images)), boxes, mirrored, turn, self.size)
        else:
            views = _crop_each(images, boxes, mirrored, self.size)
            if self.rotation_degrees:
                whole = torch.tensor([0.0, 0.0, self.size, self.size]).expand(len(views), 4)
                views = _sample(views, whole, torch.zeros_like(mirrored), turn, self.size)
        if self.jitter:
            jittered = next(draws) < self.jitter
            strengths = (self.brightness, self.contrast, self.saturation, self.hue)
            colour.jitter_(views, jittered, strengths, torch.stack([next(draws) for _ in range(8)], dim=1))
        if self.grey:
            chosen = (next(draws) < self.grey).nonzero().squeeze(1)
            views[chosen] = colour.grey(views[chosen]).expand(-1, 3, -1, -1)
        if self.blur:
            chosen = (next(draws) < self.blur).nonzero().squeeze(1)
            low, high = self.blur_sigma
            views[chosen] = blurred(views[chosen], low + (high - low) * next(draws)[chosen])
        if self.solarize:
            chosen = (uniforms[:, -1] < self.solarize).nonzero().squeeze(1)
            views[chosen] = torch.where(views[chosen] >= 0.5, 1 - views[chosen], views[chosen])
        return views

    def _boxes(self, images: Sequence[Tensor], draws: Iterator[Tensor]) -> Tensor:
        """Crop boxes (B, 4) in whole pixels: left, top, width, height."""
        tries = torch.stack([next(draws) for _ in range(2 * CROP_ATTEMPTS)], dim=1).double()
        height, width = (torch.tensor([image.shape[d] for image in images]).double() for d in (1, 2))
        area = (self.crop_area[0] + (self.crop_area[1] - self.crop_area[0]) * tries[:, ::2]) * (height * width)[:, None]
        low, high = (math.log(ratio) for ratio in self.crop_ratio)
        ratio = (low + (high - low) * tries[:, 1::2]).exp()
        w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (w >= 1) & (w <= width[:, None]) & (h >= 1) & (h <= height[:, None])
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
        left, top = ((next(draws).double() * (full - part + 1)).floor() for full, part in ((width, w), (height, h)))
        # Nothing fitted: the centred box of the nearest allowed shape.
        w2 = torch.minimum(width, (height * self.crop_ratio[1]).round())
        h2 = torch.minimum(height, (width / self.crop_ratio[0]).round())
        centred = torch.stack([((width - w2) / 2).round(), ((height - h2) / 2).round(), w2, h2], dim=1)
        return torch.where(fits.any(dim=1)[:, None], torch.stack([left, top, w, h], dim=1), centred).float()


@dataclass(frozen=True)
class Views:
    """The views a method gets of each image, in its order."""

    augments: tuple[Augment, ...] = ()

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator], rows: slice) -> list[Tensor]:
        """All views of the `rows` of a global batch that this process has.

        Args:
            images: this process's images, each (3, H, W) uint8.
            generators: one for each augmentation.
            rows: their place in the global batch; all its draws are made, so views do not depend on the process.
        """
        counts = (FIRST_DRAWS, DRAWS - FIRST_DRAWS)
        return [
            augment(images, torch.cat([torch.rand(rows.stop, n, generator=generator)[rows] for n in counts], dim=1))
            for augment, generator in zip(self.augments, generators, strict=True)
        ]


def _crop_each(images: Sequence[Tensor], boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Cut, resize (bilinear, antialiased) and mirror image by image, for images that differ in size or must shrink.

    In bytes and channels last, as Pillow does it and several times faster than in floats.
    """
    views = torch.empty(len(images), 3, size, size)
    for number, (left, top, width, height) in enumerate(boxes.int().tolist()):
        cut = images[number][None, :, top : top + height, left : left + width].contiguous(
            memory_format=torch.channels_last
        )
        resized = F.interpolate(cut, (size, size), mode="bilinear", antialias=True)[0]
        views[number] = resized.flip(2) if mirrored[number] else resized
    return views.div_(255)


def _sample(images: Tensor, boxes: Tensor, mirrored: Tensor, turn: Tensor, size: int) -> Tensor:
    """Crop, mirror, turn and resize `images` (B, 3, H, W) by one bilinear interpolation."""
    height, width = images.shape[-2:]
    left, top, w, h = boxes.unbind(dim=1)
    # Half the box and its middle, in grid_sample's units, where the image spans -1 to 1.
    half_x, half_y = w / width, h / height
    middle_x, middle_y = 2 * left / width + half_x - 1, 2 * top / height + half_y - 1
    half_across = torch.where(mirrored, -half_x, half_x)
    cosine, sine = turn.cos(), turn.sin()
    aspect = width / height
    # F.affine_grid, as two broadcast sums: its batched product with 3x2 matrices is several times slower.
    across = (2 * torch.arange(size) + 1) / size - 1
    grid = torch.empty(len(images), size, size, 2)
    grid[..., 0] = _plane(half_across * cosine, -half_y * sine / aspect, middle_x, across)
    grid[..., 1] = _plane(half_across * sine * aspect, half_y * cosine, middle_y, across)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _plane(per_x: Tensor, per_y: Tensor, offset: Tensor, across: Tensor) -> Tensor:
    """`per_x · x + per_y · y + offset`, (B, S, S), at the positions `across` (S,) of both axes."""
    return (per_x[:, None] * across)[:, None, :] + (per_y[:, None] * across + offset[:, None])[:, :, None]


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Each image (B, 3, H, W) under a Gaussian of its own `sigma` (B,) pixels, normalised at the edges.

    One banded matrix for each image and axis, of which only blocks on the diagonal are multiplied: at these sizes that
    beats a grouped convolution.
    """
    reach = math.ceil(REACH * float(sigma.max())) if len(sigma) else 0
    for side in (images.shape[-1], images.shape[-2]):  # the last axis is blurred, then the two change places
        by_distance = (-(torch.arange(side) ** 2) / (2 * sigma[:, None] ** 2)).exp()
        lines, blocks = images.flatten(1, 2), []
        for start in range(0, side, BLOCK):
            here = torch.arange(start, min(side, start + BLOCK))
            near = torch.arange(max(0, start - reach), min(side, start + BLOCK + reach))
            weights = by_distance[:, (here[:, None] - near).abs()]
            weights = weights / weights.sum(dim=-1, keepdim=True)
            blocks.append(torch.bmm(lines[..., near[0] : near[-1] + 1], weights.transpose(1, 2)))
        images = torch.cat(blocks, dim=2).view(images.shape).transpose(-1, -2)
    return images
