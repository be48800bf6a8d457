"""Cityscapes, fine annotations (https://www.cityscapes-dataset.com)."""

from cgh_bench.data.layout import Layout, Part

CLASSES_WITH_INSTANCES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
CLASSES_EVALUATED = 19
GET = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip (https://www.cityscapes-dataset.com/downloads) in "
    "$CGH_DATA/cityscapes, `pip install cityscapesscripts`"
)


def _maps(split: str, kind: str, count: int, classes: int) -> Part:
    return Part(f"leftImg8bit/{split}/{{}}_leftImg8bit.png", f"gtFine/{split}/{{}}_gtFine_{kind}.png", count, classes)


def _instances(split: str, count: int) -> Part:
    annotations = f"annotations/instancesonly_filtered_gtFine_{split}.json"
    return Part(f"leftImg8bit/{split}/{{}}", annotations, count, CLASSES_WITH_INSTANCES)


LAYOUTS = {
    "cityscapes": Layout(
        folder="cityscapes",
        parts=tuple(
            _maps(split, "labelTrainIds", count, CLASSES_EVALUATED) for split, count in (("train", 2_975), ("val", 500))
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
    ),
}
