"""Pictures of what was found, for people: a query with its ranking, matches as lines, the frames of a video."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.data.image_set import Images

RIGHT, WRONG, NEUTRAL = (0, 158, 115), (213, 94, 0), (120, 120, 120)
"""Okabe and Ito's green and red, which colour-blind readers tell apart."""
OBJECTS = ((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))
SIDE, BORDER, GAP = 112, 5, 6
"""Pixels of a tile and of its frame, and between tiles."""
Colour = tuple[int, int, int]


def picture_of(image: "Tensor") -> Image.Image:
    """A picture of (3, H, W) uint8."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def thumbnails(images: "Images", rows: Sequence[int], side: int, columns: int) -> Image.Image:
    """Some images squashed to squares of `side` pixels, `columns` in a row without gaps, on white."""
    drawn = Image.new("RGB", (columns * side, math.ceil(len(rows) / columns) * side), "white")
    for place, row in enumerate(rows):
        drawn.paste(
            picture_of(images.image(row)).resize((side, side)), (place % columns * side, place // columns * side)
        )
    return drawn


def tile(image: Image.Image, colour: Colour) -> Image.Image:
    """The image within a square, framed in a colour."""
    inner = SIDE - 2 * BORDER
    return ImageOps.expand(ImageOps.pad(image.convert("RGB"), (inner, inner), color="white"), BORDER, colour)


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Tiles of one size in rows, on white."""
    width, height = rows[0][0].size
    across, down = (width + GAP), (height + GAP)
    drawn = Image.new("RGB", (across * max(map(len, rows)) - GAP, down * len(rows) - GAP), "white")
    for row, tiles in enumerate(rows):
        for column, one in enumerate(tiles):
            drawn.paste(one, (column * across, row * down))
    return drawn


def matches(
    pictures: tuple[Image.Image, Image.Image],
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    right: NDArray[np.bool_],
    height: int = 240,
) -> Image.Image:
    """Two images side by side, with a line from each point (n, 2) of the first to its match in the second.

    Lines of `right` matches (n,) are green, of others red.
    """
    factors = [height / picture.height for picture in pictures]
    resized = [
        picture.convert("RGB").resize((max(1, round(picture.width * factor)), height))
        for picture, factor in zip(pictures, factors, strict=True)
    ]
    drawn = Image.new("RGB", (resized[0].width + GAP + resized[1].width, height), "white")
    offset = resized[0].width + GAP
    drawn.paste(resized[0], (0, 0))
    drawn.paste(resized[1], (offset, 0))
    pen = ImageDraw.Draw(drawn)
    ends = [(place + 0.5) * factor for place, factor in zip(points, factors, strict=True)]
    for start, end, hit in zip(*ends, right, strict=True):
        colour = RIGHT if hit else WRONG
        line = (float(start[0]), float(start[1]), float(end[0]) + offset, float(end[1]))
        pen.line(line, fill=colour, width=2)
        for x, y in (line[:2], line[2:]):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline=colour, width=2)
    return drawn


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any sizes below each other, on white."""
    height = sum(picture.height + GAP for picture in pictures) - GAP
    drawn = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        drawn.paste(picture, (0, top))
        top += picture.height + GAP
    return drawn


def objects(image: Image.Image, owner: NDArray[np.uint8], height: int = 160) -> Image.Image:
    """The image under the colours of its objects: `owner` (H, W) is 0 for none, k for object k."""
    drawn = np.asarray(image.convert("RGB")).astype(np.float64)
    for number in np.unique(owner[owner > 0]):
        drawn[owner == number] = 0.4 * drawn[owner == number] + 0.6 * np.array(OBJECTS[(number - 1) % len(OBJECTS)])
    width = max(1, round(image.width * height / image.height))
    return Image.fromarray(drawn.round().astype(np.uint8)).resize((width, height))


def boxes(image: Image.Image, found: Sequence[tuple[Sequence[float], Colour]], height: int = 240) -> Image.Image:
    """The image with boxes: left, top, right, bottom in its pixels, each in its colour."""
    factor = height / image.height
    drawn = image.convert("RGB").resize((max(1, round(image.width * factor)), height))
    pen = ImageDraw.Draw(drawn)
    for box, colour in found:
        left, top, right, bottom = (side * factor for side in box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=3)
    return drawn


NEAR, FAR = (253, 231, 37), (68, 1, 84)


def shades(values: NDArray[np.float32], least: float, most: float) -> Image.Image:
    """A map (H, W) from yellow at `least` to violet at `most`; what is 0 is black."""
    share = np.clip((values - least) / max(most - least, 1e-9), 0, 1)[:, :, None]
    colours = (1 - share) * np.array(NEAR) + share * np.array(FAR)
    return Image.fromarray(np.where(values[:, :, None] > 0, colours, 0).round().astype(np.uint8))


def principal_colours(features: NDArray[np.float32], grid: tuple[int, int]) -> list[Image.Image]:
    """The first three principal components of patches (N, P, D) as red, green and blue.

    Components and scales are those of all images together, so that a colour means the same in each. Signs are fixed
    by the largest entry of a component.
    """
    flat = features.reshape(-1, features.shape[2]).astype(np.float64)
    flat -= flat.mean(axis=0)
    vectors = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :3]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(vectors.shape[1])])
    scores = flat @ vectors
    low, high = np.percentile(scores, (2, 98), axis=0)
    colours = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    pixels = np.zeros((len(features), *grid, 3), np.uint8)  # of fewer than three components, the others are black
    pixels[..., : vectors.shape[1]] = (255 * colours).round().reshape(len(features), *grid, -1)
    return [Image.fromarray(each) for each in pixels]
