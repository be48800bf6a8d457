"""VTAB-1k: nineteen sets of 800 + 200 train images each, in the layout that its users hand on: lists beside images.

Source: Zhai et al., https://arxiv.org/abs/1910.04867; splits `train800`, `val200` and `test` of
google-research/task_adaptation. Folders `vtab-1k/NAME` with `train800.txt`, `val200.txt` and `test.txt`, a line being
`PATH LABEL`: as in ZhangYuanhan-AI/NOAH, whose images are resized to 224×224 whatever their shape.
"""

from pathlib import Path

import numpy as np

from cgh_bench.data.folder import from_list
from cgh_bench.data.image_set import FetchedImages, ImageSet, Split
from cgh_bench.data.transform import EvalTransform

SQUASHED = EvalTransform(224, None, "bicubic", squash=True)
TRAIN, HELD_OUT = 800, 200

TEST_IMAGES = {
    "caltech101": 6_084,
    "cifar": 10_000,
    "dtd": 1_880,
    "oxford_flowers102": 6_149,
    "oxford_iiit_pet": 3_669,
    "svhn": 26_032,
    "sun397": 21_750,
    "patch_camelyon": 32_768,
    "eurosat": 5_400,
    "resisc45": 6_300,
    "diabetic_retinopathy": 42_670,
    "clevr_count": 15_000,
    "clevr_dist": 15_000,
    "dmlab": 22_735,
    "kitti": 711,
    "dsprites_loc": 73_728,
    "dsprites_ori": 73_728,
    "smallnorb_azi": 12_150,
    "smallnorb_ele": 12_150,
}


def _listed(path: Path) -> list[tuple[str, int]]:
    lines = (line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [(image, int(label)) for image, label in lines]


def _read(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    """The 800 train images and, held out, the 200; or the test images. Classes are their numbers."""
    fitted, held, tested = (_listed(folder / f"{part}.txt") for part in ("train800", "val200", "test"))
    listed = fitted + held if split == "train" else tested
    classes = [str(number) for number in range(1 + max(label for _, label in fitted + held + tested))]
    rows = np.arange(len(fitted), len(listed), dtype=np.int64) if split == "train" else None
    return from_list(f"vtab_{folder.name}/{split}", folder, classes, listed, rows, cache=cache)


CATALOG = {
    f"vtab_{name}": FetchedImages(
        description=f"VTAB-1k {name}: 1,000 train (200 of them for selection), {test:,} test; top-1",
        source="Zhai et al., https://arxiv.org/abs/1910.04867; layout and transform of ZhangYuanhan-AI/NOAH",
        folder=f"vtab-1k/{name}",
        needs=("train800.txt", "val200.txt", "test.txt"),
        how="unpack vtab-1k.zip, which github.com/ZhangYuanhan-AI/NOAH links, in $CGH_DATA",
        counts=(TRAIN + HELD_OUT, test),
        read=_read,
        transform=SQUASHED,
    )
    for name, test in TEST_IMAGES.items()
}
