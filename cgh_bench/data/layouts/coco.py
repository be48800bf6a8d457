"""COCO 2017 (https://cocodataset.org), LVIS v1 on its images, and COCO 2014's images for object discovery."""

from cgh_bench.data.annotations import Form
from cgh_bench.data.layout import Layout, Part, Split

NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CLASSES = tuple(NAMES.split(","))
GET = (
    "unpack http://images.cocodataset.org/zips/train2017.zip, …/zips/val2017.zip and "
    "…/annotations/annotations_trainval2017.zip in $CGH_DATA/coco"
)


def _parts(
    images: str,
    annotations: str,
    classes: tuple[str, ...] | int,
    counts: tuple[int, int] = (118_287, 5_000),
    form: Form = "COCO",
) -> tuple[Part, ...]:
    """Train and val, whose names stand for SPLIT."""
    splits: tuple[Split, Split] = ("train", "val")
    return tuple(
        Part(
            images.replace("SPLIT", split),
            f"annotations/{annotations}.json".replace("SPLIT", split),
            count,
            classes,
            split=split,
            scored=split == "val",
            form=form,
        )
        for split, count in zip(splits, counts, strict=True)
    )


LAYOUTS = {
    "coco": Layout(
        folder="coco",
        parts=_parts("SPLIT2017/{}", "instances_SPLIT2017", CLASSES),
        gigabytes=20.0,
        how=GET,
    ),
    "coco_keypoints": Layout(
        folder="coco",
        parts=_parts("SPLIT2017/{}", "person_keypoints_SPLIT2017", ("person",), form="keypoints"),
        gigabytes=20.0,
        how=GET,
    ),
    "lvis": Layout(
        folder="coco",
        parts=_parts("{}", "lvis_v1_SPLIT", 1_203, (100_170, 19_809), "LVIS"),
        gigabytes=21.0,
        how=f"{GET}, and lvis_v1_train.json.zip and lvis_v1_val.json.zip of https://www.lvisdataset.org/dataset in "
        "$CGH_DATA/coco/annotations",
    ),
    # valeoai/LOST@fcedbec datasets.py: the images of its coco_20k_filenames.txt, with their entries of COCO's file.
    "coco20k": Layout(
        folder="coco",
        parts=(
            Part(
                "train2014/{}", "annotations/instances_train2014_sel20k.json", 19_817, CLASSES, "", "val", scored=True
            ),
        ),
        gigabytes=14.0,
        how="unpack http://images.cocodataset.org/zips/train2014.zip and …/annotations/annotations_trainval2014.zip in "
        "$CGH_DATA/coco, write instances_train2014_sel20k.json by select_coco_20k of datasets.py in "
        "https://github.com/valeoai/LOST, and move it to $CGH_DATA/coco/annotations",
    ),
}
