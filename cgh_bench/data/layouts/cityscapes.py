"""Cityscapes, fine annotations (https://www.cityscapes-dataset.com)."""

from cgh_bench.data.layout import Layout, Part, Split

CLASSES_WITH_INSTANCES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
NAMES = (
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,truck,"
    "bus,train,motorcycle,bicycle"
)
CLASSES_OF_MAPS = tuple(NAMES.split(","))
"""In the order of their train ids."""
GET = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip (https://www.cityscapes-dataset.com/downloads) in "
    "$CGH_DATA/cityscapes, `pip install cityscapesscripts`"
)


def _maps(split: Split, kind: str, count: int, classes: int) -> Part:
    files = f"leftImg8bit/{split}/{{}}_leftImg8bit.png", f"gtFine/{split}/{{}}_gtFine_{kind}.png"
    return Part(*files, count, classes, split=split, scored=split == "val")


def _instances(split: Split, count: int) -> Part:
    annotations = f"annotations/instancesonly_filtered_gtFine_{split}.json"
    return Part(f"leftImg8bit/{split}/{{}}", annotations, count, CLASSES_WITH_INSTANCES, split=split)


LAYOUTS = {
    "cityscapes": Layout(
        folder="cityscapes",
        parts=(
            _maps("train", "labelTrainIds", 2_975, len(CLASSES_OF_MAPS)),
            _maps("val", "labelTrainIds", 500, len(CLASSES_OF_MAPS)),
        ),
        gigabytes=12.0,
        how=f"{GET} and run `CITYSCAPES_DATASET=$CGH_DATA/cityscapes csCreateTrainIdLabelImgs`",
    ),
    "cityscapes_inst": Layout(
        folder="cityscapes",
        parts=(
            _instances("train", 2_975),
            _instances("val", 500),
            _maps("val", "instanceIds", 500, 0),  # what Cityscapes' own evaluation reads
        ),
        gigabytes=12.0,
        how=f"{GET} and run mmdetection's tools/dataset_converters/cityscapes.py $CGH_DATA/cityscapes "
        "--out-dir $CGH_DATA/cityscapes/annotations",
        not_in_path=("leftImg8bit", "gtFine"),
    ),
}
