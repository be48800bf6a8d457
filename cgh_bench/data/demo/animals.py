"""`animals`: 48×48 grey pictures of the silhouettes, moved, turned, scaled and mirrored, on one dark ground.

Everything that is constant within an image and easy to see (its own background, colour, gradient or tint) is learned by
self-supervision instead of shape, so there is none: the ground is one constant, and the relief is a function of the
shape alone. What differs between two images of this set is the silhouette, its pose and a little of its brightness.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cgh_bench.data.demo.silhouettes import CLASSES, SIDE, SOURCE, Pixels, silhouettes
from cgh_bench.data.image_set import GreyImages, LabelledImages, Split, content_fingerprint


@dataclass(frozen=True)
class AnimalsSettings:
    """Every number of the generator. Ranges are uniform and inclusive; lengths are shares of the picture's side."""

    side: int = 48  # pixels
    ground: int = 40  # grey level of the ground, the same in every image
    level: tuple[float, float] = (0.8, 1.0)  # brightness of the animal, share of 255
    size: tuple[float, float] = (0.55, 1.0)  # side of the 28×28 silhouette's frame
    stretch: float = 1.25  # the frame's width over its height is between 1 / stretch and stretch
    outside: float = 0.05  # the frame lies anywhere in the picture, or outside it by up to this much
    rotation_degrees: float = 20.0  # up to this much each way
    mirrored: float = 0.5  # probability
    relief: float = 0.35  # how much darker than its inside a silhouette's rim is
    relief_radius: float = 2.0  # pixels of the 28×28 silhouette
    seed: int = 64


SETTINGS = AnimalsSettings()


@cache
def animals(split: Split, settings: AnimalsSettings = SETTINGS) -> GreyImages:
    """One split of the set, in memory: 7,716 images to train on or 2,000 (200 a class) to validate.

    The resampling is Pillow's (bicubic), the draws are NumPy's PCG64: the same on every machine.
    """
    shapes = silhouettes(split)
    seed = np.random.SeedSequence([settings.seed, split == "val"])
    draws = np.random.Generator(np.random.PCG64(seed)).random((len(shapes.images), 7))
    pixels = np.stack([render(s, d, settings) for s, d in zip(shapes.images, draws, strict=True)])
    pixels.flags.writeable = False
    fingerprint = content_fingerprint(CLASSES, pixels, shapes.labels)
    return GreyImages(f"animals/{split}", CLASSES, shapes.labels.copy(), fingerprint, pixels)


def render(silhouette: Pixels, draws: NDArray[np.float64], settings: AnimalsSettings) -> Pixels:
    """The (side, side) uint8 picture of a (28, 28) uint8 `silhouette`, posed by seven `draws` from [0, 1)."""
    size = settings.side * _within(settings.size, draws[0])
    angle = math.radians(_within((-settings.rotation_degrees, settings.rotation_degrees), draws[1]))
    slack = (settings.side - size) / 2 + settings.side * settings.outside
    middle = [settings.side / 2 + _within((-slack, slack), draw) for draw in draws[2:4]]
    level = _within(settings.level, draws[4])
    stretch = math.sqrt(settings.stretch) ** _within((-1, 1), draws[6])

    # The affine map from a picture's pixel to the silhouette's, rounded so that it is the same on every machine.
    cosine, sine = math.cos(angle) * SIDE / size, math.sin(angle) * SIDE / size
    sign = -1 if draws[5] < settings.mirrored else 1
    coefficients = []
    for row in ((sign * cosine / stretch, sign * sine / stretch), (-sine * stretch, cosine * stretch)):
        a, b = (round(value * 2**20) / 2**20 for value in row)
        coefficients += [a, b, round((SIDE / 2 - a * middle[0] - b * middle[1]) * 2**20) / 2**20]

    posed = relief(silhouette, settings).transform(
        (settings.side, settings.side), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    lift = round(level * 255) - settings.ground
    return (settings.ground + (np.asarray(posed, dtype=np.int32) * lift + 127) // 255).astype(np.uint8)


def relief(silhouette: Pixels, settings: AnimalsSettings) -> Image.Image:
    """The silhouette, darker towards its rim."""
    flat = Image.fromarray(silhouette)
    if settings.relief == 0:
        return flat
    depth = np.asarray(flat.filter(ImageFilter.GaussianBlur(settings.relief_radius)), dtype=np.int32)
    share = round(settings.relief * 256)
    shaded = silhouette.astype(np.int32) * (256 * 255 - share * (255 - depth)) // (256 * 255)
    return Image.fromarray(shaded.astype(np.uint8))


def _within(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(draw)


CATALOG = {
    "animals": LabelledImages(
        description="48×48 grey images of ten kinds of animal: 7,716 train, 2,000 val", source=SOURCE, load=animals
    )
}
