"""Drawing on images, and images as data URIs, so that a page needs no other file."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cgh_bench.data.image_set import Images
from cgh_bench.frozen.drawing import picture_of

QUALITY = 80
# Okabe and Ito's colours (https://jfly.uni-koeln.de/color), safe for colour-blind readers, and two more.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (153, 221, 119),
    (170, 140, 255),
    (200, 200, 200),
)


@dataclass(frozen=True)
class Instance:
    """One object on a picture: detected, or annotated if it has no score."""

    label: int
    """Index into the classes, from 0."""
    box: tuple[float, float, float, float]
    """Left, top, width, height in pixels."""
    mask: NDArray[np.bool_] | None
    """(H, W)"""
    score: float | None = None
    points: tuple[tuple[float, float], ...] = ()
    """Keypoints, x and y in pixels."""


def colour(label: int) -> tuple[int, int, int]:
    """The colour of a class."""
    return PALETTE[label % len(PALETTE)]


def css_colour(label: int) -> str:
    """The colour of a class as a page's legend names it."""
    return "rgb({}, {}, {})".format(*colour(label))


def data_uri(image: Image.Image) -> str:
    """The picture as a lossy WebP data URI."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def thumbnail(images: Images, index: int, side: int) -> str:
    """Image `index`, reduced to at most `side` pixels a side, as a data URI."""
    picture = picture_of(images.image(index))
    picture.thumbnail((side, side))
    return data_uri(picture)


def enlarge(image: Image.Image, width: int) -> Image.Image:
    """`image` smoothly enlarged to at least `width` pixels, by a whole factor."""
    factor = max(1, -(-width // image.width))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)


def draw_instances(image: Image.Image, instances: Sequence[Instance], names: Sequence[str], width: int) -> Image.Image:
    """`image`, enlarged to `width`, with mask, box, points, name, score of each instance; the highest score on top."""
    drawn = enlarge(image.convert("RGB"), width)
    factor = drawn.width // image.width
    ordered = sorted(instances, key=lambda instance: -1 if instance.score is None else instance.score)
    for instance in ordered:
        if instance.mask is not None:
            _tint(drawn, np.asarray(instance.mask), instance.label, factor)
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(10, drawn.width // 23))
    for instance in ordered:
        left, top, across, down = (side * factor for side in instance.box)
        pen.rectangle((left, top, left + across, top + down), outline=colour(instance.label), width=2)
        for x, y in (np.array(point) * factor for point in instance.points):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour(instance.label))
        text = names[instance.label] + ("" if instance.score is None else f" {instance.score:.2f}")
        _tag(pen, drawn.size, (left, top), text, colour(instance.label), font)
    return drawn


def draw_classes(image: Image.Image, classes: NDArray[np.uint8], width: int) -> Image.Image:
    """`image`, enlarged to `width`, under the colours of a map `classes` (H, W): 0 background, c + 1 class c."""
    drawn = enlarge(image.convert("RGB"), width)
    for value in np.unique(classes):
        if value:
            _tint(drawn, classes == value, int(value) - 1, drawn.width // image.width, opacity=0.62)
    return drawn


def _tint(drawn: Image.Image, mask: NDArray[np.bool_], label: int, factor: int, opacity: float = 0.45) -> None:
    """Lay the colour of the class over a (H, W) `mask`."""
    stencil = Image.fromarray((mask * round(255 * opacity)).astype(np.uint8))
    stencil = stencil.resize((stencil.width * factor, stencil.height * factor), Image.Resampling.NEAREST)
    drawn.paste(colour(label), (0, 0), stencil)


def _tag(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    ground: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write `text` on a patch of `ground` above the `corner`, moved to stay within the picture."""
    across, down = pen.textbbox((0, 0), text, font=font)[2:]
    left = max(0.0, min(corner[0], size[0] - across - 6))
    top = max(0.0, corner[1] - down - 4)
    pen.rectangle((left, top, left + across + 5, top + down + 3), fill=ground)
    pen.text((left + 3, top + 1), text, fill=(0, 0, 0), font=font)
