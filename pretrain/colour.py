"""Colour changes of a whole batch, a factor for each image, after the definitions of torchvision's ColorJitter."""

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R BT.601, as torchvision rounds it."""


def grey(images: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of RGB `images` (B, 3, H, W)."""
    red, green, blue = images.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def jitter_(images: Tensor, chosen: Tensor, strengths: tuple[float, float, float, float], draws: Tensor) -> None:
    """Change brightness, contrast, saturation and hue of the `chosen` images in place, each in an order of its own.

    Args:
        images: (B, 3, H, W) in [0, 1].
        chosen: (B,) bool.
        strengths: of brightness, contrast, saturation (factor in `1 ± strength`, not below 0) and hue (turns).
        draws: (B, 8) uniform numbers: four strengths, four that give the order.
    """
    changes = (brightness, contrast, saturation, hue)
    low, high = zip(*[(max(0.0, 1 - s), 1 + s) for s in strengths[:3]] + [(-strengths[3], strengths[3])], strict=True)
    factors = torch.tensor(low) + (torch.tensor(high) - torch.tensor(low)) * draws[:, :4]
    # Images with one order of changes go together: each is fetched and put back once.
    order = draws[:, 4:].argsort(dim=1)
    orders, order_of = order.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    for number, kinds in enumerate(orders.tolist()):
        rows = (chosen & (order_of == number)).nonzero().squeeze(1)
        if len(rows):
            changed = images[rows]
            for kind in kinds:
                if strengths[kind]:
                    changed = changes[kind](changed, factors[rows, kind].view(-1, 1, 1, 1))
            images[rows] = changed


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Towards black."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Towards (or away from) the image's mean brightness."""
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * factor).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Towards (or away from) grey."""
    without = grey(images)
    return (without + (images - without) * factor).clamp_(0, 1)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle, at constant value and saturation of the HSV cone."""
    red, green, blue = images.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    reddest, greenest = red == value, green == value
    # In sixths of the circle, from red; the last where() of each line is of the pixels whose largest channel is blue.
    sixth = torch.where(reddest, green - blue, torch.where(greenest, blue - red, red - green))
    sixth.div_(chroma.clamp(min=1e-12)).add_(torch.where(reddest, 0.0, torch.where(greenest, 2.0, 4.0)))
    sixth.add_(6 * turns[:, 0])
    sixth.sub_((sixth / 6).floor_(), alpha=6)
    turned = torch.empty_like(images)
    # The share of the chroma that each channel lacks rises and falls along the circle.
    torch.addcmul(value, chroma, (sixth - 3).abs_().neg_().add_(2).clamp_(0, 1), value=-1, out=turned[:, 0])
    for channel, middle in ((1, 2), (2, 4)):
        torch.addcmul(value, chroma, (sixth - middle).abs_().sub_(1).clamp_(0, 1), value=-1, out=turned[:, channel])
    return turned
