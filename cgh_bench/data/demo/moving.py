"""`animal_videos`: silhouettes that move over a piece of photograph; which pixel is whose is known by construction."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.demo.composition import SceneSettings, piece, posed, seeded
from cgh_bench.data.demo.silhouettes import CLASSES, SOURCE, Pixels, silhouettes
from cgh_bench.data.image_set import ColourImages, RelatedImages, content_fingerprint
from cgh_bench.data.videos import Video, Videos

SCENES = SceneSettings()


@dataclass(frozen=True)
class VideoSettings:
    """Every number of the generator that is not of `animal_scenes`. Ranges are uniform and inclusive."""

    videos: int = 12
    frames: int = 12
    side: int = 128  # pixels
    most_animals: int = 3  # videos with 1, 2, … of them are equally many
    length: tuple[int, int] = (36, 56)  # longer side of an animal
    fastest: int = 5  # pixels a frame, each way; animals turn at the border
    flicker: float = 0.1  # how much brighter or darker a frame may be
    seed: int = 73


SETTINGS = VideoSettings()


@cache
def animal_videos(settings: VideoSettings = SETTINGS) -> Videos:
    """The videos, of silhouettes of the val split, all in memory."""
    made = [_video(number, settings) for number in range(settings.videos)]
    pixels, owners = (np.stack([each[part] for each in made]) for part in (0, 1))
    content = content_fingerprint((), pixels, owners)
    labels = np.zeros(settings.frames, np.int64)
    videos = tuple(
        Video(
            f"video {number:02d}",
            ColourImages(f"animal_videos/{number:02d}", ("frame",), labels, f"{content}{number}", frames),
            owner.__getitem__,
        )
        for number, (frames, owner) in enumerate(zip(pixels, owners, strict=True))
    )
    return Videos("animal_videos", videos, content)


def _video(number: int, settings: VideoSettings) -> tuple[Pixels, Pixels]:
    """Frames (T, 3, side, side) and their owners (T, side, side)."""
    generator = seeded([settings.seed, number])
    scenes = replace(SCENES, side=settings.side, length=settings.length)
    ground = piece("val", generator, scenes).astype(np.float64)
    dimmest, lightest = scenes.background_level
    level = dimmest + (lightest - dimmest) * generator.random()
    still = level + scenes.background_contrast * (ground - ground.mean((0, 1)))
    images = np.repeat(still[None], settings.frames, axis=0)
    owners = np.zeros((settings.frames, settings.side, settings.side), np.uint8)
    for animal in range(1 + number % settings.most_animals):
        shade, fill = _animal(generator, scenes)
        inside = shade > 0
        for frame, (top, left) in enumerate(_path(inside.shape, generator, settings)):
            window = (frame, slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1]))
            owners[window][inside] = 1 + animal
            images[window][inside] = fill[inside]
    images *= 1 + settings.flicker * (2 * generator.random(settings.frames) - 1)[:, None, None, None]
    pixels: Pixels = np.clip(np.rint(images), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return pixels, owners


def _animal(generator: np.random.Generator, scenes: SceneSettings) -> tuple[Pixels, NDArray[np.float64]]:
    """A silhouette's shade (h, w), 0 outside, and its colours (h, w, 3)."""
    shapes = silhouettes("val")
    label = int(generator.random() * len(CLASSES))
    choices = np.flatnonzero(shapes.labels == label)
    shade = posed(shapes.images[choices[int(generator.random() * len(choices))]], generator, scenes)
    texture = piece("val", generator, scenes)[: shade.shape[0], : shade.shape[1]]
    darkest, brightest = scenes.colour
    colour = darkest + (brightest - darkest) * generator.random(3)
    return shade, colour + scenes.texture_contrast * (texture - texture.mean((0, 1)))


def _path(shape: tuple[int, ...], generator: np.random.Generator, settings: VideoSettings) -> NDArray[np.int64]:
    """Where the top and left of something of this `shape` are in each frame, (T, 2): it is reflected by the borders."""
    room = settings.side - np.array(shape[:2])
    start = (generator.random(2) * (room + 1)).astype(np.int64)
    speed = ((2 * settings.fastest + 1) * generator.random(2)).astype(np.int64) - settings.fastest
    straight = start + np.arange(settings.frames)[:, None] * speed
    return np.abs((straight + room) % np.maximum(1, 2 * room) - room)


CATALOG = {
    "animal_videos": RelatedImages(
        description="12 videos of 12 frames, 128×128, of one to three moving animals, with object masks",
        source=f"{SOURCE}; photographs in the wheels of scikit-image and scikit-learn (docs/data.md lists them)",
        load=lambda root, cache: animal_videos(),
        kind="video",
    )
}
