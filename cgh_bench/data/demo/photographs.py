"""The photographs behind and on the animals of `animal_scenes`, from the wheels of scikit-image and scikit-learn.

Only files inside the wheels count (scikit-image downloads others on demand), only those whose licence is stated, and
none that shows an animal, which would be there without a label.
"""

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import Split

# Where each package keeps its pictures.
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Photograph:
    """One picture: the split it serves, its file in its package, its licence as that package states it."""

    split: Split
    package: str
    file: str
    licence: str
    source: str
    sha256: str


# Licences and sources: the docstrings of skimage/data/_fetchers.py (scikit-image 0.26) and
# sklearn/datasets/images/README.txt (scikit-learn 1.9).
PHOTOGRAPHS = (
    Photograph(
        "train", "skimage", "astronaut.png", "public domain", "NASA, https://flic.kr/p/r9qvLn",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    Photograph(
        "train", "skimage", "brick.png", "CC0", "https://cc0textures.com/view.php?tex=Bricks25",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    ),
    Photograph(
        "train", "skimage", "camera.png", "CC0", "Lav Varshney",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    ),
    Photograph(
        "train", "skimage", "grass.png", "CC0", "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    ),
    Photograph(
        "train", "skimage", "hubble_deep_field.jpg", "public domain",
        "NASA, http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    Photograph(
        "train", "skimage", "ihc.png", "no known copyright restrictions", "Center for Microscopy And Molecular Imaging",
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    ),
    Photograph(
        "train", "skimage", "rocket.jpg", "public domain",
        "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820/",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    Photograph(
        "train", "sklearn", "flower.jpg", "CC BY 2.0", "https://www.flickr.com/photos/vultilion/6056698931/",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    Photograph(
        "val", "skimage", "coffee.png", "CC0", "Rachel Michetti, Pikolo Espresso Bar",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    Photograph(
        "val", "skimage", "coins.png", "no known copyright restrictions",
        "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    ),
    Photograph(
        "val", "skimage", "gravel.png", "CC0", "https://cc0textures.com/view.php?tex=Gravel04",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    ),
    Photograph(
        "val", "sklearn", "china.jpg", "CC BY 2.0", "https://www.flickr.com/photos/danielbuechele/6061409035/",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
)  # fmt: skip


@cache
def photographs(split: Split) -> tuple[Image.Image, ...]:
    """The photographs of one split, in RGB; not to be drawn on.

    Raises:
        UserError: a package is absent, or its file is not the one listed.
    """
    return tuple(_read(photograph) for photograph in PHOTOGRAPHS if photograph.split == split)


def _read(photograph: Photograph) -> Image.Image:
    name = PIP_NAMES[photograph.package]
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the dataset 'animal_scenes' needs the package {name}; pip install {name}")
    path = Path(spec.submodule_search_locations[0]) / FOLDERS[photograph.package] / photograph.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); pip install --force-reinstall {name}") from None
    if hashlib.sha256(content).hexdigest() != photograph.sha256:
        raise UserError(f"{path} is not the expected image (its SHA-256 differs); pip install --force-reinstall {name}")
    return Image.open(io.BytesIO(content)).convert("RGB")
