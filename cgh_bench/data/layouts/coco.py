"""COCO 2017 (https://cocodataset.org), and 19,817 images of COCO 2014 on which object discovery is measured."""

from cgh_bench.data.layout import Layout, Part

NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CLASSES = tuple(NAMES.split(","))

LAYOUTS = {
    "coco": Layout(
        folder="coco",
        parts=(
            Part("train2017/{}", "annotations/instances_train2017.json", 118_287, CLASSES),
            Part("val2017/{}", "annotations/instances_val2017.json", 5_000, CLASSES, split="val", scored=True),
        ),
        gigabytes=20.0,
        how="unpack http://images.cocodataset.org/zips/train2017.zip, …/zips/val2017.zip and "
        "…/annotations/annotations_trainval2017.zip in $CGH_DATA/coco",
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
