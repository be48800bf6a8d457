"""Scenes: one to four animals on a piece of photograph, with the exact owner of every pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cgh_bench.data.demo.photographs import photographs
from cgh_bench.data.demo.silhouettes import CLASSES, silhouettes
from cgh_bench.data.image_set import Split

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]
FEW = 100
"""The number of scenes that are made faster than other processes start."""


@dataclass(frozen=True)
class SceneSettings:
    """Every number of the generator. Ranges are uniform and inclusive; lengths are pixels unless they are shares."""

    train_scenes: int = 1500
    val_scenes: int = 300
    side: int = 128
    most_animals: int = 4  # scenes with 1, 2, … of them are equally many
    length: tuple[int, int] = (32, 71)  # longer side of an animal before it is turned
    rotation_degrees: float = 12.0  # up to this much each way
    mirrored: float = 0.5  # probability
    widest_piece: float = 3.0  # a piece of a photograph is 1 to so many times this side, where the photograph allows
    background_level: tuple[int, int] = (30, 90)  # mean of each channel of the background
    background_contrast: float = 0.4  # of the photograph's own
    texture_contrast: float = 0.3  # of the photograph's own, around the animal's colour
    colour: tuple[int, int] = (130, 240)  # of each channel: pale animals on dim photographs, as `animals` has them
    stripes: float = 0.5  # how much darker a zebra's black stripes are
    outline: int = 40  # grey level from which a pixel belongs to the silhouette (most of a zebra's dark stripes do)
    min_visible_share: float = 0.65  # of an animal's own pixels, under those in front of it
    min_visible_pixels: int = 80
    min_part: float = 0.1  # of the largest part of an animal; smaller parts are specks
    max_hole: float = 0.03  # of an animal's pixels; a zebra's darkest stripes are such holes, and filled
    min_contrast: float = 60.0  # see `contrast`
    seed: int = 128


@dataclass(frozen=True, eq=False)
class Scene:
    """`image` (H, W, 3) uint8; `owner` (H, W) uint8, 0 for background, k for animal k, visible pixels only;
    `labels` (n,) int64, the class of animal 1 … n.
    """

    image: Pixels
    owner: Pixels
    labels: Labels

    def masks(self) -> Mask:
        """(n, H, W) bool, the visible pixels of each animal."""
        return self.owner[None] == np.arange(1, len(self.labels) + 1)[:, None, None]

    def semantic(self) -> Pixels:
        """(H, W) uint8: 0 for background, 1 + class for animals."""
        return np.concatenate([[0], self.labels + 1]).astype(np.uint8)[self.owner]


def compose(split: Split, settings: SceneSettings) -> Iterator[Scene]:
    """The scenes of one split, made by all cores. Each class occurs equally often (give or take one)."""
    count = settings.val_scenes if split == "val" else settings.train_scenes
    sizes = 1 + np.arange(count) % settings.most_animals
    seed = [settings.seed, int(split == "val")]
    order = np.argsort(seeded(seed).random(sizes.sum()), kind="stable")
    labels = np.split(order % len(CLASSES), np.cumsum(sizes)[:-1])
    from joblib import Parallel, delayed

    jobs = (delayed(_numbered)(split, labels[index], [*seed, 1 + index], settings) for index in range(count))
    yield from Parallel(n_jobs=1 if count < FEW else -1, return_as="generator")(jobs)


def _numbered(split: Split, labels: Labels, seed: list[int], settings: SceneSettings) -> Scene:
    return _scene(split, labels, seeded(seed), settings)


def contrast(scene: Scene, animal: int, width: int = 3) -> float:
    """How well animal `animal` (1 … n) stands out: the least distance of colours across its outline.

    Its rim (its pixels within `width` of the outside) is compared with the ring around it (other pixels within
    `width`), apart for each neighbour (the background, another animal) that has at least 16 pixels of the ring, or for
    all of the ring where none has: Euclidean distance of mean RGB values, 0 … 441.
    """
    from scipy import ndimage

    own = scene.owner == animal
    rows, columns = _extent(own)
    window = tuple(slice(max(0, s.start - width), s.stop + width) for s in (rows, columns))
    own, owner, image = own[window], scene.owner[window], scene.image[window].astype(np.int64)
    ring = ndimage.binary_dilation(own, iterations=width) & ~own
    rim = own & ~ndimage.binary_erosion(own, iterations=width, border_value=1)
    parts = [part for neighbour in np.unique(owner[ring]) if (part := ring & (owner == neighbour)).sum() >= 16]
    colour = image[rim].mean(0)
    return min(float(np.linalg.norm(colour - image[part].mean(0))) for part in (parts or [ring]))


def tidy(mask: Mask, min_part: float) -> Mask:
    """`mask` without its specks: parts (8-connected) smaller than `min_part` of its largest."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count <= 1:
        return mask
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return (areas >= min_part * areas.max())[parts] & mask


def _scene(split: Split, labels: Labels, generator: np.random.Generator, settings: SceneSettings) -> Scene:
    """A scene that keeps every promise of `settings`: drawn anew until one does."""
    for _ in range(1000):
        shades = _place(split, labels, generator, settings)
        if shades is None:
            continue
        owner = np.zeros((settings.side, settings.side), dtype=np.uint8)
        for number, shade in enumerate(shades, start=1):
            owner[shade > 0] = number
        scene = Scene(_paint(split, owner, shades, generator, settings), owner, labels)
        if all(contrast(scene, number) >= settings.min_contrast for number in range(1, len(labels) + 1)):
            return scene
    raise AssertionError("the settings leave no room for scenes")


def _place(
    split: Split, labels: Labels, generator: np.random.Generator, settings: SceneSettings
) -> list[Pixels] | None:
    """Each animal's shade (side, side) uint8, 0 outside it, back to front; None where they hide each other too much."""
    shapes = silhouettes(split)
    owner = np.zeros((settings.side, settings.side), dtype=np.uint8)
    placed: list[Pixels] = []
    areas: list[int] = []
    for label in labels:
        choices = np.flatnonzero(shapes.labels == label)
        shade = posed(shapes.images[choices[_below(len(choices), generator)]], generator, settings)
        height, width = shade.shape
        top = _below(settings.side - height + 1, generator)
        left = _below(settings.side - width + 1, generator)
        whole = np.zeros_like(owner)
        whole[top : top + height, left : left + width] = shade
        placed.append(whole)
        areas.append(int((shade > 0).sum()))
        owner[whole > 0] = len(placed)
        needed = np.maximum(settings.min_visible_pixels, settings.min_visible_share * np.array(areas))
        if (np.bincount(owner.ravel(), minlength=len(placed) + 1)[1:] < needed).any():
            return None
    visible = [owner == number for number in range(1, len(placed) + 1)]
    return placed if all((tidy(own, settings.min_part) == own).all() for own in visible) else None


def posed(silhouette: Pixels, generator: np.random.Generator, settings: SceneSettings) -> Pixels:
    """A silhouette resized, turned, maybe mirrored and cut to its extent: (h, w) uint8, 0 outside, its grey inside."""
    rows, columns = _extent(silhouette >= settings.outline)
    cut = Image.fromarray(silhouette[rows, columns])
    shortest, longest = settings.length
    factor = (shortest + _below(longest - shortest + 1, generator)) / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * factor)), max(1, round(cut.height * factor))), Image.Resampling.BICUBIC)
    if generator.random() < settings.mirrored:
        cut = ImageOps.mirror(cut)
    degrees = settings.rotation_degrees * (2 * generator.random() - 1)
    grey = np.asarray(cut.rotate(degrees, Image.Resampling.BICUBIC, expand=True))
    mask = _filled(tidy(grey >= settings.outline, settings.min_part), settings.max_hole)
    rows, columns = _extent(mask)
    return np.where(mask, np.maximum(grey, 1), 0)[rows, columns]


def _extent(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns that a (H, W) mask reaches."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _filled(mask: Mask, max_hole: float) -> Mask:
    """`mask` with its holes of up to `max_hole` of its own area filled."""
    from scipy import ndimage

    holes, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    areas = np.bincount(holes.ravel())
    small = areas <= max_hole * mask.sum()
    small[0] = False
    return mask | small[holes][1:-1, 1:-1]


def _paint(
    split: Split, owner: Pixels, shades: list[Pixels], generator: np.random.Generator, settings: SceneSettings
) -> Pixels:
    """The (H, W, 3) uint8 image: a faded piece of a photograph, each animal in a colour and texture of its own."""
    ground = piece(split, generator, settings)
    mean = ground.mean((0, 1))
    dimmest, lightest = settings.background_level
    level = dimmest + (lightest - dimmest) * generator.random()
    image = level + settings.background_contrast * (ground - mean)
    darkest, brightest = settings.colour
    for number, shade in enumerate(shades, start=1):
        texture = piece(split, generator, settings)
        own = owner == number
        colour = darkest + (brightest - darkest) * generator.random(3)
        texture = texture[own]
        fill = colour + settings.texture_contrast * (texture - texture.mean(0))
        dark = settings.stripes * (1 - shade[own].astype(np.float64) / 255)
        image[own] = fill * (1 - dark[:, None])
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def piece(split: Split, generator: np.random.Generator, settings: SceneSettings) -> NDArray[np.int64]:
    """A random square of a random photograph of the split, resized to (side, side, 3)."""
    pictures = photographs(split)
    picture = pictures[_below(len(pictures), generator)]
    largest = min(picture.width, picture.height, round(settings.widest_piece * settings.side))
    extent = settings.side + _below(largest - settings.side + 1, generator)
    left, top = _below(picture.width - extent + 1, generator), _below(picture.height - extent + 1, generator)
    square = picture.resize((settings.side,) * 2, Image.Resampling.BILINEAR, (left, top, left + extent, top + extent))
    return np.asarray(square, dtype=np.int64)


def seeded(seed: list[int]) -> np.random.Generator:
    """Draws that are the same on every machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def _below(count: int, generator: np.random.Generator) -> int:
    """A whole number from 0 to `count` - 1."""
    return int(generator.random() * count)
