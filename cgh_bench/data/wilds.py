"""Sets of WILDS whose folder has a `metadata.csv`: a classifier is judged by groups of images, the worst above all.

"train" is the set's own train split and "val" its test split; its validation images, of other groups, are not learned
from. Groups are those that WILDS reports by (https://github.com/p-lambda/wilds, `_eval_grouper` of each set).
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cgh_bench.data.folder import from_list
from cgh_bench.data.groups import grouped
from cgh_bench.data.image_set import FetchedImages, ImageSet, Split

Line = Mapping[str, str]


def _read(
    folder: Path,
    classes: tuple[str, str],
    in_split: Callable[[Line], bool],
    image: Callable[[Line], tuple[str, int, str]],
    name: str,
    cache: Path | None,
) -> ImageSet:
    """The images of a split; `image` gives the path, label and group of a line of the table."""
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        images = [image(line) for line in csv.DictReader(file) if in_split(line)]
    listed = [(path, label) for path, label, _ in images]
    return replace(from_list(name, folder, classes, listed, cache=cache), groups=grouped([each[2] for each in images]))


def _waterbirds(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    """Four groups: each kind of bird on each kind of background. Splits: 0 train, 1 val, 2 test."""
    birds, number = ("landbird", "waterbird"), {"train": "0", "val": "2"}[split]

    def image(line: Line) -> tuple[str, int, str]:
        label = int(line["y"])
        return line["img_filename"], label, f"{birds[label]} on {('land', 'water')[int(line['place'])]}"

    return _read(folder, birds, lambda line: line["split"] == number, image, f"waterbirds/{split}", cache)


def _camelyon17(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    """Ten slides of a hospital (centre 2) that train (centres 0, 3, 4; split 0) has none of."""

    def in_split(line: Line) -> bool:
        return line["center"] == "2" if split == "val" else line["center"] not in ("1", "2") and line["split"] == "0"

    def image(line: Line) -> tuple[str, int, str]:
        of, at = f"patient_{line['patient']}_node_{line['node']}", f"x_{line['x_coord']}_y_{line['y_coord']}"
        return f"patches/{of}/patch_{of}_{at}.png", int(line["tumor"]), f"slide {line['slide']}"

    return _read(folder, ("normal", "tumor"), in_split, image, f"camelyon17/{split}", cache)


def _fetched(description: str, folder: str, counts: tuple[int, int], read: Callable[..., ImageSet]) -> FetchedImages:
    return FetchedImages(
        description=description,
        source="Koh et al., https://arxiv.org/abs/2012.07421; transform: as the transfer suite",
        folder=folder,
        needs=("metadata.csv",),
        how=f"python -c \"__import__('wilds').get_dataset('{folder.partition('_')[0]}', download=True, "
        "root_dir='$CGH_DATA')\" (pip install wilds)",
        counts=counts,
        read=read,
    )


CATALOG = {
    "waterbirds": _fetched(
        "landbirds and waterbirds on land and water backgrounds: 4,795 train, 5,794 test; worst-group top-1 (4 groups)",
        "waterbirds_v1.0",
        (4_795, 5_794),
        _waterbirds,
    ),
    "camelyon17": _fetched(
        "tumour or none, another hospital's slides: 302,436 train, 85,054 test; top-1",
        "camelyon17_v1.0",
        (302_436, 85_054),
        _camelyon17,
    ),
}
