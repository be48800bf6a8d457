"""`animal_pairs`: a silhouette twice, in other poses, colours and places: every point's counterpart is known."""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.data.demo.animals import SETTINGS as ANIMALS
from cgh_bench.data.demo.animals import relief
from cgh_bench.data.demo.composition import SceneSettings, piece, seeded
from cgh_bench.data.demo.silhouettes import CLASSES, SIDE, SOURCE, Pixels, silhouettes
from cgh_bench.data.image_set import ColourImages, RelatedImages, content_fingerprint
from cgh_bench.data.pairs import Pair, PairedImages, Points

SCENES = SceneSettings()


@dataclass(frozen=True)
class WarpSettings:
    """Every number of the generator that is not of `animal_scenes`. Ranges are uniform and inclusive."""

    pairs: int = 100
    side: int = 128  # pixels
    points: int = 12  # of each pair, drawn from the silhouette
    size: tuple[float, float] = (0.55, 0.85)  # of the silhouette's frame, share of the side
    rotation_degrees: float = 20.0  # up to this much each way
    seed: int = 71


SETTINGS = WarpSettings()


@cache
def animal_pairs(settings: WarpSettings = SETTINGS) -> PairedImages:
    """The pairs, of silhouettes of the val split, all in memory; equally many of each class."""
    shapes = silhouettes("val")
    images, pairs, labels = [], [], []
    for number in range(settings.pairs):
        generator = seeded([settings.seed, number])
        label = number % len(CLASSES)
        choices = np.flatnonzero(shapes.labels == label)
        shape = shapes.images[choices[int(generator.random() * len(choices))]]
        inside = np.argwhere(shape >= SCENES.outline)[:, ::-1]
        chosen = inside[np.argsort(generator.random(len(inside)))[: settings.points]].astype(np.float64)
        views = [_view(shape, generator, settings) for _ in range(2)]
        source, target = (_moved(chosen, matrix) for _, matrix, _ in views)
        size = (settings.side, settings.side)
        pairs.append(Pair(2 * number, 2 * number + 1, label, source, target, (size, size), views[1][2]))
        images += [image for image, _, _ in views]
        labels += [label, label]
    pixels = np.stack(images).transpose(0, 3, 1, 2)
    points = np.concatenate([np.concatenate([pair.source_points, pair.target_points]) for pair in pairs])
    content = content_fingerprint(CLASSES, pixels, points)
    held = ColourImages("animal_pairs/val", CLASSES, np.array(labels), content, pixels)
    return PairedImages("animal_pairs", CLASSES, held, tuple(pairs), content)


Matrix = NDArray[np.float64]
"""(2, 3), from a pixel of the picture to one of the silhouette."""


def _view(shape: Pixels, generator: np.random.Generator, settings: WarpSettings) -> tuple[Pixels, Matrix, float]:
    """A picture (side, side, 3) of the silhouette, where it is, and the longer side of its box."""
    draws = generator.random(6)
    least, most = settings.size
    size = settings.side * (least + (most - least) * draws[0])
    angle = math.radians(settings.rotation_degrees * (2 * draws[1] - 1))
    slack = (settings.side - size) / 2
    middle = [settings.side / 2 + slack * (2 * draw - 1) for draw in draws[2:4]]
    cosine, sine = math.cos(angle) * SIDE / size, math.sin(angle) * SIDE / size
    sign = -1 if draws[4] < 0.5 else 1
    rows = []
    for a, b in ((sign * cosine, sign * sine), (-sine, cosine)):  # rounded, so that it is the same on every machine
        across, down = (round(value * 2**20) / 2**20 for value in (a, b))
        rows.append([across, down, round((SIDE / 2 - across * middle[0] - down * middle[1]) * 2**20) / 2**20])
    matrix = np.array(rows)

    def posed(image: Image.Image) -> Pixels:
        frame = (settings.side, settings.side)
        turned = image.transform(frame, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BICUBIC)
        return np.asarray(turned)

    mask, shade = posed(Image.fromarray(shape)) >= SCENES.outline, posed(relief(shape, ANIMALS))
    ground = piece("val", generator, replace(SCENES, side=settings.side))
    dimmest, lightest = SCENES.background_level
    level = dimmest + (lightest - dimmest) * draws[5]
    image = level + SCENES.background_contrast * (ground - ground.mean((0, 1)))
    darkest, brightest = SCENES.colour
    colour = darkest + (brightest - darkest) * generator.random(3)
    image[mask] = colour * shade[mask, None] / 255
    extent = float(max(np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (0, 1)))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), matrix, extent


def _moved(points: Points, matrix: Matrix) -> Points:
    """Where pixels (n, 2) of the silhouette are in the picture; Pillow counts from corners, points from centres."""
    back = np.linalg.inv(matrix[:, :2])
    return (points + 0.5 - matrix[:, 2]) @ back.T - 0.5


CATALOG = {
    "animal_pairs": RelatedImages(
        description="100 pairs of 128×128 images of one animal in two poses, with 12 corresponding points",
        source=f"{SOURCE}; photographs in the wheels of scikit-image and scikit-learn (docs/data.md lists them)",
        load=lambda root, cache: animal_pairs(),
        kind="correspondence",
    )
}
