"""Other images of ImageNet's classes, which are evaluated and never learned from: V2, A, R, Sketch, ObjectNet, ReaL, C.

The classes of a set are those that its images may be taken for: 200 of the 1,000 for A and R. They are named by WordNet
id or by number, the place of the class among the sorted ids; `tasks/shifted.py` finds them among the probe's classes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.folder import FolderImages, from_list, load_classes
from cgh_bench.data.image_set import FetchedImages, Split
from cgh_bench.data.transform import IMAGENET_LINEAR

if TYPE_CHECKING:
    from torch import Tensor

BORDER = 2
"""Pixels on each side of an ObjectNet image, which its authors marked red: modestyachts/imagenet-testbed
`src/eval_settings/objectnet.py` removes as many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SeveralAnswers(FolderImages):
    """Images for each of which several classes are right; `labels` has one of them."""

    accepted: tuple[frozenset[int], ...]
    """The right classes of each of the N images."""

    @cached_property
    def fingerprint(self) -> str:
        """The hash of images, classes and right classes."""
        answers = json.dumps([sorted(each) for each in self.accepted])
        return hashlib.sha256((super().fingerprint + answers).encode()).hexdigest()[:16]

    def right(self, predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the predicted classes (N,) are among the right ones of their image, (N,)."""
        return np.array([each in right for each, right in zip(predicted.tolist(), self.accepted, strict=True)])


class Framed(SeveralAnswers):
    """The same, each image without a border of `BORDER` pixels."""

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB, its border cut off."""
        return super().image(index)[:, BORDER:-BORDER, BORDER:-BORDER]


Read = Callable[[Path, Split, Path | None], FolderImages]


def _by_id(folder: Path, split: Split, cache: Path | None) -> FolderImages:
    return load_classes(folder, folder.name, cache)


def _by_number(folder: Path, split: Split, cache: Path | None) -> FolderImages:
    """Folders 0 to 999: sorted as numbers, not as words (0, 1, 10, 100, …)."""
    found = load_classes(folder, folder.name, cache)
    numbers = np.array([int(name) for name in found.classes], np.int64)
    classes = tuple(map(str, range(len(numbers))))
    if {*found.classes} != {*classes}:
        raise ValueError("expected folders named 0, 1, 2, … 999")
    return replace(found, classes=classes, labels=numbers[found.labels])


def _real(folder: Path, split: Split, cache: Path | None) -> FolderImages:
    """ImageNet's val with the labels of ReaL; images without a label are left out."""
    val = load_classes(folder / "val", "imagenet_real", cache)
    answers = json.loads((folder / "real.json").read_text())
    listed, accepted = [], []
    for path in val.paths:
        right = answers[int(Path(path).stem.rsplit("_", 1)[1]) - 1]  # ILSVRC2012_val_00000001.JPEG is the first
        if right:
            listed.append((path, right[0]))
            accepted.append(frozenset(right))
    return _several(SeveralAnswers, from_list("imagenet_real", val.folder, val.classes, listed, cache=cache), accepted)


def _objectnet(folder: Path, split: Split, cache: Path | None) -> FolderImages:
    """The classes that are ImageNet's too, by ObjectNet's own `mappings/`."""
    maps = folder / "mappings"
    label_of: dict[str, str] = json.loads((maps / "folder_to_objectnet_label.json").read_text())
    names_of: dict[str, str] = json.loads((maps / "objectnet_to_imagenet_1k.json").read_text())
    line_of: dict[str, int] = json.loads((maps / "pytorch_to_imagenet_2012_id.json").read_text())
    lines = [line.strip() for line in (maps / "imagenet_to_label_2012_v2").read_text(encoding="utf-8").splitlines()]
    number_of = {lines[line]: int(number) for number, line in line_of.items()}
    right_of = {
        name: frozenset(number_of[each] for each in names_of[label].split("; "))
        for name, label in label_of.items()
        if label in names_of
    }
    numbers = sorted(frozenset.union(*right_of.values()))
    place = {number: index for index, number in enumerate(numbers)}
    images = load_classes(folder / "images", "objectnet", cache, only=sorted(right_of))
    accepted = [frozenset(place[number] for number in right_of[images.classes[label]]) for label in images.labels]
    listed = [(path, min(right)) for path, right in zip(images.paths, accepted, strict=True)]
    return _several(
        Framed, from_list("objectnet", images.folder, list(map(str, numbers)), listed, cache=cache), accepted
    )


def _several(kind: type[SeveralAnswers], images: FolderImages, accepted: Sequence[frozenset[int]]) -> SeveralAnswers:
    return kind(**{f.name: getattr(images, f.name) for f in fields(images)}, accepted=tuple(accepted))


CORRUPTED = "imagenet-c"
"""The folder of ImageNet-C below `$CGH_DATA`: CORRUPTION/SEVERITY/WNID/*.JPEG, as its archives unpack."""


def imagenet_c(root: Path, corruption: str, severity: int) -> FolderImages:
    """ImageNet's val under one corruption, stored at 224 pixels.

    Raises:
        UserError: it is not there: where it is expected, and how to get it.
    """
    folder = root / CORRUPTED / corruption / str(severity)
    if not folder.is_dir():
        raise UserError(
            f"{folder} not found ($CGH_DATA is {root}); to get it: unpack the archives of "
            f"https://zenodo.org/records/2235448 in $CGH_DATA/{CORRUPTED}"
        )
    return load_classes(folder, f"imagenet_c ({corruption} {severity})")


def _fetched(description: str, source: str, folder: str, count: int, how: str, read: Read) -> FetchedImages:
    return FetchedImages(
        description=description,
        source=source,
        folder=folder,
        needs=(".",),
        how=how,
        counts=(0, count),
        read=read,
        transform=IMAGENET_LINEAR,
        only_val=True,
    )


SHIFTS = {
    "imagenet_v2": _fetched(
        "ImageNet-V2, matched frequency: 10,000 images of the 1,000 classes; evaluation only",
        "Recht et al., ICML 2019, https://arxiv.org/abs/1902.10811",
        "imagenetv2-matched-frequency-format-val",
        10_000,
        "unpack imagenetv2-matched-frequency.tar.gz of huggingface.co/datasets/vaishaal/ImageNetV2 in $CGH_DATA",
        _by_number,
    ),
    "imagenet_a": _fetched(
        "ImageNet-A, natural adversarial examples: 7,500 images of 200 classes; evaluation only",
        "Hendrycks et al., CVPR 2021, https://arxiv.org/abs/1907.07174; restricted to its classes as in "
        "hendrycks/natural-adv-examples eval.py",
        "imagenet-a",
        7_500,
        "unpack imagenet-a.tar of https://github.com/hendrycks/natural-adv-examples in $CGH_DATA",
        _by_id,
    ),
    "imagenet_r": _fetched(
        "ImageNet-R, renditions: 30,000 images of 200 classes; evaluation only",
        "Hendrycks et al., ICCV 2021, https://arxiv.org/abs/2006.16241; restricted to its classes as in "
        "hendrycks/imagenet-r eval.py",
        "imagenet-r",
        30_000,
        "unpack imagenet-r.tar of https://github.com/hendrycks/imagenet-r in $CGH_DATA",
        _by_id,
    ),
    "imagenet_sketch": _fetched(
        "ImageNet-Sketch: 50,889 drawings of the 1,000 classes; evaluation only",
        "Wang et al., NeurIPS 2019, https://arxiv.org/abs/1905.13549",
        "imagenet-sketch",
        50_889,
        "unpack ImageNet-Sketch.zip of github.com/HaohanWang/ImageNet-Sketch into $CGH_DATA/imagenet-sketch/WNID",
        _by_id,
    ),
    "objectnet": _fetched(
        "ObjectNet, the 113 classes that ImageNet has too: 18,574 images; evaluation only",
        "Barbu et al., NeurIPS 2019, https://objectnet.dev; several right classes, border and choice of classes as in "
        "modestyachts/imagenet-testbed",
        "objectnet-1.0",
        18_574,
        "unpack objectnet-1.0.zip of https://objectnet.dev in $CGH_DATA",
        _objectnet,
    ),
    "imagenet_real": _fetched(
        "ImageNet val with ReaL labels: 46,837 images, often with several correct classes; evaluation only",
        "Beyer et al., https://arxiv.org/abs/2006.07159; google-research/reassessed-imagenet",
        "imagenet1k",
        46_837,
        "lay out ImageNet (see imagenet1k), and put real.json of github.com/google-research/reassessed-imagenet into "
        "$CGH_DATA/imagenet1k",
        _real,
    ),
}
NEEDS = {"objectnet": ("images", "mappings"), "imagenet_real": ("val", "real.json")}

CATALOG = {name: replace(entry, needs=NEEDS.get(name, entry.needs)) for name, entry in SHIFTS.items()}
