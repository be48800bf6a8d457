"""`animals_small` and `animals_background`: the val images of `animals` with one thing changed, for evaluation only."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from cgh_bench.core.errors import UserError
from cgh_bench.data.demo.animals import SETTINGS, animals
from cgh_bench.data.demo.composition import SceneSettings, piece, seeded
from cgh_bench.data.demo.silhouettes import SOURCE
from cgh_bench.data.image_set import GreyImages, LabelledImages, Split, content_fingerprint

SMALL = replace(SETTINGS, size=(0.3, 0.5))
CONTRAST = 0.6
"""The share of a photograph's contrast that is left."""
EDGE = 60
"""Grey levels over the ground from which a pixel is all animal."""
SEED = 48


@cache
def small() -> GreyImages:
    """The animals at about half their size."""
    return replace(animals("val", SMALL), name="animals_small/val")


@cache
def on_photographs() -> GreyImages:
    """The animals on pieces of photographs, as bright on average as the ground that they replace."""
    plain = animals("val")
    settings = SceneSettings(side=SETTINGS.side)
    generator = seeded([SEED])
    pixels = np.empty_like(plain.pixels)
    for index, picture in enumerate(plain.pixels.astype(np.float64)):
        texture = piece("val", generator, settings).mean(axis=2)
        ground = SETTINGS.ground + CONTRAST * (texture - texture.mean())
        animal = np.clip((picture - SETTINGS.ground) / EDGE, 0, 1)
        pixels[index] = np.rint(np.clip(animal * picture + (1 - animal) * ground, 0, 255))
    content = content_fingerprint(plain.classes, pixels, plain.labels)
    return replace(plain, name="animals_background/val", pixels=pixels, content=content)


def _only_val(name: str, make: Callable[[], GreyImages], split: Split) -> GreyImages:
    if split == "train":
        raise UserError(f"{name} has only val images; train on animals")
    return make()


def _entry(name: str, make: Callable[[], GreyImages], what: str) -> LabelledImages:
    return LabelledImages(
        description=f"the 2,000 val images of animals {what}; evaluation only",
        source=SOURCE,
        load=lambda split: _only_val(name, make, split),
    )


CATALOG = {
    "animals_small": _entry("animals_small", small, "at about half their size"),
    "animals_background": _entry("animals_background", on_photographs, "on pieces of photographs"),
}
