"""iNaturalist, whose classes have from a few to a thousand train images: groups are classes of many, some and few.

The groups are those of Liu et al., https://arxiv.org/abs/1904.05160: more than 100 train images, 20 to 100, fewer.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from cgh_bench.data.folder import from_list
from cgh_bench.data.groups import grouped
from cgh_bench.data.image_set import FetchedImages, ImageSet, Split

MANY, FEW = 100, 20


def _read(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    year = folder.name.removeprefix("inat")
    train, wanted = (
        json.loads((folder / f"{part}{year if year == '2018' else ''}.json").read_text(encoding="utf-8"))
        for part in ("train", split)
    )
    categories = sorted(train["categories"], key=lambda each: int(each["id"]))
    label = {each["id"]: place for place, each in enumerate(categories)}
    of_image = {each["image_id"]: label[each["category_id"]] for each in wanted["annotations"]}
    listed = [(each["file_name"], of_image[each["id"]]) for each in wanted["images"]]
    counts = np.bincount([label[each["category_id"]] for each in train["annotations"]], minlength=len(label))
    named = ["head" if count > MANY else "tail" if count < FEW else "medium" for count in counts.tolist()]
    images = from_list(f"{folder.name}/{split}", folder, [str(each["id"]) for each in categories], listed, cache=cache)
    return replace(images, groups=grouped([named[place] for _, place in listed]))


def _entry(year: str, classes: str, counts: tuple[int, int], needs: tuple[str, ...]) -> FetchedImages:
    return FetchedImages(
        description=f"{classes} species: {counts[0]:,} train, {counts[1]:,} val; mean per class; head, medium, tail",
        source="Van Horn et al., https://arxiv.org/abs/1707.06642; https://github.com/visipedia/inat_comp",
        folder=f"inat{year}",
        needs=needs,
        how=f"unpack the images and the JSON files of github.com/visipedia/inat_comp/tree/master/{year} in "
        f"$CGH_DATA/inat{year}",
        counts=counts,
        read=_read,
        metric="class_balanced",
    )


CATALOG = {
    "inat2018": _entry("2018", "8,142", (437_513, 24_426), ("train2018.json", "val2018.json", "train_val2018")),
    "inat2021": _entry("2021", "10,000", (2_686_843, 100_000), ("train.json", "val.json", "train", "val")),
}
