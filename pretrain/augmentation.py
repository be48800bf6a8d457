"""The pixels of random views, computed for a whole batch; what is drawn is a function of `uniforms` alone.

The operations and their order are those of MoCo v2 (Chen et al., arXiv 2003.04297) and SimCLR (arXiv 2002.05709),
after torchvision's RandomResizedCrop, ColorJitter and RandomGrayscale. They are computed here because torchvision takes
1.5 times as long, image by image (`benchmarks/data_path.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from cgh_bench.pretrain.views import Augment

CROP_ATTEMPTS = 10
"""As torchvision: the first of ten boxes that fits inside the image, else the largest centred one."""
DRAWS_OF_BOXES = 2 * CROP_ATTEMPTS + 2
FIRST_DRAWS = 2 * CROP_ATTEMPTS + 16
DRAWS = FIRST_DRAWS + 1
"""Uniform numbers that one view of one image may use. The last, for solarisation, is drawn after all others, which so
stay the same with and without it."""
PIXELS_AT_ONCE = 2**19
"""Larger tensors are returned to the system after every operation, then fetched and cleared again."""
BLOCK, REACH = 64, 4.5
"""Columns of a blur that are computed together, and the standard deviations beyond which a Gaussian (4e-5) is cut."""
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value: ITU-R BT.601, rounded as in torchvision."""


class Cut(NamedTuple):
    """What one view is made of, in bytes; the rest of its making depends on `uniforms` alone, and can be on a GPU."""

    pixels: Tensor
    """(B, 3, H, W) uint8: cut, resized and mirrored already, or whole images."""
    boxes: Tensor | None
    """(B, 4) what is to be cut out of whole images."""
    uniforms: Tensor
    """(B, DRAWS) in [0, 1), in the memory of the CPU: no choice waits for a GPU."""


def augmented(augment: Augment, images: Sequence[Tensor], uniforms: Tensor) -> Tensor:
    """See `Augment.__call__`."""
    many = max(1, PIXELS_AT_ONCE // augment.size**2)
    if len(images) <= many:
        return finish(augment, cut(augment, images, uniforms))
    views = torch.empty(len(images), 3, augment.size, augment.size)
    for start in range(0, len(images), many):
        some = slice(start, start + many)
        views[some] = finish(augment, cut(augment, images[some], uniforms[some]))
    return views


def cut(augment: Augment, images: Sequence[Tensor], uniforms: Tensor) -> Cut:
    """The first half of `augmented`: image by image where they differ in size or must shrink."""
    draws = iter(uniforms.unbind(dim=1))
    boxes = crop_boxes(augment, images, draws)
    if len({image.shape for image in images}) == 1 and max(images[0].shape[1:]) <= augment.size:
        return Cut(torch.stack(list(images)), boxes, uniforms)
    mirrored = next(draws) < augment.flip
    return Cut(_crop_each(images, boxes, mirrored, augment.size, augment.interpolation), None, uniforms)


def finish(augment: Augment, cut: Cut) -> Tensor:
    """The second half, for the whole batch at once, on the device where the pixels are."""
    draws = iter(cut.uniforms.unbind(dim=1)[DRAWS_OF_BOXES:])
    mirrored = next(draws) < augment.flip
    turn = (2 * next(draws) - 1) * math.radians(augment.rotation_degrees)
    views, device = cut.pixels / 255, cut.pixels.device
    if cut.boxes is not None:
        views = _sample(views, cut.boxes, mirrored, turn, augment.size, augment.interpolation)
    elif augment.rotation_degrees:
        whole = torch.tensor([0.0, 0.0, augment.size, augment.size]).expand(len(views), 4)
        views = _sample(views, whole, torch.zeros_like(mirrored), turn, augment.size, augment.interpolation)
    if augment.jitter:
        jittered = next(draws) < augment.jitter
        strengths = (augment.brightness, augment.contrast, augment.saturation, augment.hue)
        jitter_(views, jittered, strengths, torch.stack([next(draws) for _ in range(8)], dim=1))
    if augment.grey:
        chosen = _where(next(draws) < augment.grey).to(device, non_blocking=True)
        views[chosen] = grey(views[chosen]).expand(-1, 3, -1, -1)
    if augment.blur:
        chosen = _where(next(draws) < augment.blur)
        low, high = augment.blur_sigma
        sigma = low + (high - low) * next(draws)[chosen]
        chosen = chosen.to(device, non_blocking=True)
        views[chosen] = blurred(views[chosen], sigma)
    if augment.solarize:
        chosen = _where(cut.uniforms[:, -1] < augment.solarize).to(device, non_blocking=True)
        views[chosen] = torch.where(views[chosen] >= 0.5, 1 - views[chosen], views[chosen])
    return views


def _where(chosen: Tensor) -> Tensor:
    """The numbers of the images that are chosen."""
    return chosen.nonzero().squeeze(1)


def crop_boxes(augment: Augment, images: Sequence[Tensor], draws: Iterator[Tensor]) -> Tensor:
    """Crop boxes (B, 4) in whole pixels: left, top, width, height."""
    tries = torch.stack([next(draws) for _ in range(2 * CROP_ATTEMPTS)], dim=1).double()
    height, width = (torch.tensor([image.shape[d] for image in images]).double() for d in (1, 2))
    low, high = augment.crop_area
    area = (low + (high - low) * tries[:, ::2]) * (height * width)[:, None]
    low, high = (math.log(ratio) for ratio in augment.crop_ratio)
    ratio = (low + (high - low) * tries[:, 1::2]).exp()
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w >= 1) & (w <= width[:, None]) & (h >= 1) & (h <= height[:, None])
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    left, top = ((next(draws).double() * (full - part + 1)).floor() for full, part in ((width, w), (height, h)))
    # Where none fits: the centred box of the nearest allowed ratio.
    w2 = torch.minimum(width, (height * augment.crop_ratio[1]).round())
    h2 = torch.minimum(height, (width / augment.crop_ratio[0]).round())
    centred = torch.stack([((width - w2) / 2).round(), ((height - h2) / 2).round(), w2, h2], dim=1)
    return torch.where(fits.any(dim=1)[:, None], torch.stack([left, top, w, h], dim=1), centred).float()


def _crop_each(images: Sequence[Tensor], boxes: Tensor, mirrored: Tensor, size: int, interpolation: str) -> Tensor:
    """Crop, resize (antialiased) and flip image by image, for images that differ in size or must shrink.

    In bytes and channels last, like Pillow; several times faster than in floats.
    """
    views = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for number, (left, top, width, height) in enumerate(boxes.int().tolist()):
        cut = images[number][None, :, top : top + height, left : left + width].contiguous(
            memory_format=torch.channels_last
        )
        resized = F.interpolate(cut, (size, size), mode=interpolation, antialias=True)[0]
        views[number] = resized.flip(2) if mirrored[number] else resized
    return views


def _sample(images: Tensor, boxes: Tensor, mirrored: Tensor, turn: Tensor, size: int, interpolation: str) -> Tensor:
    """Crop, flip, rotate and resize `images` (B, 3, H, W) in [0, 1] by one interpolation."""
    height, width = images.shape[-2:]
    boxes, mirrored, turn = (each.to(images.device, non_blocking=True) for each in (boxes, mirrored, turn))
    left, top, w, h = boxes.unbind(dim=1)
    # Half the box and its middle, in grid_sample's coordinates, where the image spans -1 to 1.
    half_x, half_y = w / width, h / height
    middle_x, middle_y = 2 * left / width + half_x - 1, 2 * top / height + half_y - 1
    half_across = torch.where(mirrored, -half_x, half_x)
    cosine, sine = turn.cos(), turn.sin()
    aspect = width / height
    # F.affine_grid, as two broadcast sums: its batched product with 3x2 matrices is several times slower.
    across = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    grid = torch.empty(len(images), size, size, 2, device=images.device)
    grid[..., 0] = _plane(half_across * cosine, -half_y * sine / aspect, middle_x, across)
    grid[..., 1] = _plane(half_across * sine * aspect, half_y * cosine, middle_y, across)
    views = F.grid_sample(images, grid, mode=interpolation, padding_mode="border", align_corners=False)
    return views.clamp_(0, 1) if interpolation == "bicubic" else views


def _plane(per_x: Tensor, per_y: Tensor, offset: Tensor, across: Tensor) -> Tensor:
    """`per_x · x + per_y · y + offset`, (B, S, S), at the positions `across` (S,) of both axes."""
    return (per_x[:, None] * across)[:, None, :] + (per_y[:, None] * across + offset[:, None])[:, :, None]


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """`images` (B, 3, H, W), each blurred by a Gaussian of its own `sigma` (B,) pixels, normalised at the edges.

    `sigma` is in the memory of the CPU.

    By one banded matrix per image and axis, of which only the blocks on the diagonal are multiplied: at these sizes
    this is faster than a grouped convolution.
    """
    reach = math.ceil(REACH * float(sigma.max())) if len(sigma) else 0
    sigma = sigma.to(images.device, non_blocking=True)
    for side in (images.shape[-1], images.shape[-2]):  # blur the last axis, then swap the two
        by_distance = (-(torch.arange(side, device=images.device) ** 2) / (2 * sigma[:, None] ** 2)).exp()
        lines, blocks = images.flatten(1, 2), []
        for start in range(0, side, BLOCK):
            here = torch.arange(start, min(side, start + BLOCK), device=images.device)
            first, last = max(0, start - reach), min(side, start + BLOCK + reach)
            near = torch.arange(first, last, device=images.device)
            weights = by_distance[:, (here[:, None] - near).abs()]
            weights = weights / weights.sum(dim=-1, keepdim=True)
            blocks.append(torch.bmm(lines[..., first:last], weights.transpose(1, 2)))
        images = torch.cat(blocks, dim=2).view(images.shape).transpose(-1, -2)
    return images


def grey(images: Tensor) -> Tensor:
    """Grey values (B, 1, H, W) of RGB `images` (B, 3, H, W)."""
    red, green, blue = images.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def jitter_(images: Tensor, chosen: Tensor, strengths: tuple[float, float, float, float], draws: Tensor) -> None:
    """Change brightness, contrast, saturation and hue of the `chosen` images in place, in an own order for each image.

    Args:
        images: (B, 3, H, W) in [0, 1].
        chosen: (B,) bool; like `draws` in the memory of the CPU.
        strengths: of brightness, contrast, saturation (factor in `1 ± strength`, not below 0) and hue (turns).
        draws: (B, 8) uniform numbers: four strengths, four that give the order.
    """
    changes = (brightness, contrast, saturation, hue)
    low, high = zip(*[(max(0.0, 1 - s), 1 + s) for s in strengths[:3]] + [(-strengths[3], strengths[3])], strict=True)
    factors = torch.tensor(low) + (torch.tensor(high) - torch.tensor(low)) * draws[:, :4]
    # Images with the same order are changed together: each is fetched and put back once.
    order = draws[:, 4:].argsort(dim=1)
    orders, order_of = order.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    for number, kinds in enumerate(orders.tolist()):
        rows = _where(chosen & (order_of == number))
        if len(rows):
            here, by = rows.to(images.device, non_blocking=True), factors[rows].to(images.device, non_blocking=True)
            changed = images[here]
            for kind in kinds:
                if strengths[kind]:
                    changed = changes[kind](changed, by[:, kind].view(-1, 1, 1, 1))
            images[here] = changed


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """`images` blended with black by `factor` (B, 1, 1, 1)."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """`images` blended with their mean grey value."""
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * factor).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """`images` blended with grey."""
    without = grey(images)
    return (without + (images - without) * factor).clamp_(0, 1)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """`images` with their hue shifted by `turns` (B, 1, 1, 1) of the colour circle; HSV value and saturation stay."""
    red, green, blue = images.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    reddest, greenest = red == value, green == value
    # In sixths of the circle, from red; the last value of each where() is for pixels whose largest channel is blue.
    sixth = torch.where(reddest, green - blue, torch.where(greenest, blue - red, red - green))
    sixth.div_(chroma.clamp(min=1e-12)).add_(torch.where(reddest, 0.0, torch.where(greenest, 2.0, 4.0)))
    sixth.add_(6 * turns[:, 0])
    sixth.sub_((sixth / 6).floor_(), alpha=6)
    turned = torch.empty_like(images)
    # The share of the chroma that a channel lacks rises and falls along the circle.
    torch.addcmul(value, chroma, (sixth - 3).abs_().neg_().add_(2).clamp_(0, 1), value=-1, out=turned[:, 0])
    for channel, middle in ((1, 2), (2, 4)):
        torch.addcmul(value, chroma, (sixth - middle).abs_().sub_(1).clamp_(0, 1), value=-1, out=turned[:, channel])
    return turned
