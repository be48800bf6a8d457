"""PASCAL VOC 2007 and 2012 (http://host.robots.ox.ac.uk/pascal/VOC), and the additional maps of SBD."""

from cgh_bench.data.layout import Layout, Part, Split

NAMES = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,pottedplant,"
    "sheep,sofa,train,tvmonitor"
)
CLASSES = tuple(NAMES.split(","))
ARCHIVES = "http://host.robots.ox.ac.uk/pascal/VOC"


def _boxes(year: str, listed: str, count: int, split: Split = "train") -> Part:
    files = f"{year}/JPEGImages/{{}}.jpg", f"{year}/Annotations/{{}}.xml"
    return Part(*files, count, CLASSES, f"{year}/ImageSets/Main/{listed}.txt", split, split == "val")


def _maps(folder: str, listed: str, count: int, split: Split = "train") -> Part:
    files = "VOC2012/JPEGImages/{}.jpg", f"VOC2012/{folder}/{{}}.png"
    names = f"VOC2012/ImageSets/Segmentation/{listed}.txt"
    return Part(*files, count, 1 + len(CLASSES), names, split, split == "val")


LAYOUTS = {
    "voc0712": Layout(
        folder="VOCdevkit",
        parts=(
            _boxes("VOC2007", "trainval", 5_011),
            _boxes("VOC2012", "trainval", 11_540),
            _boxes("VOC2007", "test", 4_952, "val"),
        ),
        gigabytes=3.0,
        how=f"unpack {ARCHIVES}/voc2007/VOCtrainval_06-Nov-2007.tar, …/voc2007/VOCtest_06-Nov-2007.tar and "
        "…/voc2012/VOCtrainval_11-May-2012.tar in $CGH_DATA",
    ),
    "voc2012_aug": Layout(
        folder="VOCdevkit",
        parts=(
            _maps("SegmentationClass", "train", 1_464),
            _maps("SegmentationClassAug", "aug", 9_118),
            _maps("SegmentationClass", "val", 1_449, "val"),
        ),
        gigabytes=2.1,
        how=f"unpack {ARCHIVES}/voc2012/VOCtrainval_11-May-2012.tar in $CGH_DATA and SBD's benchmark.tgz "
        "(http://home.bharathh.info/pubs/codes/SBD/download.html) anywhere, then run mmsegmentation's "
        "tools/dataset_converters/voc_aug.py $CGH_DATA/VOCdevkit SBD/benchmark_RELEASE",
    ),
}
