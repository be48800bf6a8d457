"""The sets of the transfer suite whose images are files, laid out as torchvision lays them out.

Splits and metrics are those of Kornblith et al. (https://arxiv.org/abs/1805.08974, table 1), which SimCLR (B.8.1) and
BYOL (D.1) took over; CUB-200 is not among theirs. "train" is everything that may be learned from, the set's own
validation images among it (`held_out`), "val" is the test split that is reported.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.folder import from_list
from cgh_bench.data.image_set import FetchedImages, ImageSet, Split
from cgh_bench.data.layouts.voc import CLASSES as VOC_CLASSES

CALTECH_TRAIN_IMAGES = 30
"""Images per class, drawn by chance (https://arxiv.org/abs/1310.1531); Kornblith et al. publish no list."""
CALTECH_SEED = 0


def torchvision_command(name: str) -> str:
    """What fetches a set as torchvision does."""
    return f"""python -c "__import__('torchvision').datasets.{name}('$CGH_DATA', download=True)\""""


def _food101(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    named = json.loads((folder / f"meta/{'train' if split == 'train' else 'test'}.json").read_text())
    classes = sorted(named)
    listed = [(f"images/{path}.jpg", label) for label, name in enumerate(classes) for path in named[name]]
    return from_list(f"food101/{split}", folder, classes, listed, cache=cache)


def _flowers102(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    from scipy.io import loadmat

    parts = loadmat(folder / "setid.mat", squeeze_me=True)
    labels = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"].astype(np.int64) - 1
    fitted, held = parts["trnid"], parts["valid"]
    numbers = np.concatenate([fitted, held]) if split == "train" else parts["tstid"]
    listed = [(f"jpg/image_{number:05d}.jpg", int(labels[number - 1])) for number in numbers.tolist()]
    classes = [str(number) for number in range(1, int(labels.max()) + 2)]  # the set names none
    return from_list(f"flowers102/{split}", folder, classes, listed, _last(len(held), numbers, split), cache=cache)


def _pets(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    lines = _lines(folder / f"annotations/{'trainval' if split == 'train' else 'test'}.txt")
    names = {}
    listed = []
    for line in lines:
        image, label, *_ = line.split()
        names[int(label) - 1] = image.rsplit("_", 1)[0]
        listed.append((f"images/{image}.jpg", int(label) - 1))
    return from_list(f"pets/{split}", folder, [names[label] for label in sorted(names)], listed, cache=cache)


def _dtd(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    fitted, held, tested = (_lines(folder / f"labels/{part}1.txt") for part in ("train", "val", "test"))
    paths = fitted + held if split == "train" else tested
    classes = sorted({path.split("/")[0] for path in fitted})
    listed = [(f"images/{path}", classes.index(path.split("/")[0])) for path in paths]
    return from_list(f"dtd/{split}", folder, classes, listed, _last(len(held), paths, split), cache=cache)


def _aircraft(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    classes = _lines(folder / "data/variants.txt")
    fitted, held, tested = (_lines(folder / f"data/images_variant_{part}.txt") for part in ("train", "val", "test"))
    lines = fitted + held if split == "train" else tested
    pairs = [line.split(" ", 1) for line in lines]
    listed = [(f"data/images/{image}.jpg", classes.index(name)) for image, name in pairs]
    return from_list(f"aircraft/{split}", folder, classes, listed, _last(len(held), lines, split), cache=cache)


def _cars(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    from scipy.io import loadmat

    classes = loadmat(folder / "devkit/cars_meta.mat", squeeze_me=True)["class_names"].tolist()
    where, annotations = {
        "train": ("cars_train", "devkit/cars_train_annos.mat"),
        "val": ("cars_test", "cars_test_annos_withlabels.mat"),
    }[split]
    found = loadmat(folder / annotations, squeeze_me=True)["annotations"]
    listed = [(f"{where}/{one['fname']}", int(one["class"]) - 1) for one in np.atleast_1d(found)]
    return from_list(f"cars/{split}", folder, classes, listed, cache=cache)


def _sun397(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    classes = _lines(folder / "ClassName.txt")
    number = {name: label for label, name in enumerate(classes)}
    paths = _lines(folder / f"{'Training' if split == 'train' else 'Testing'}_01.txt")
    listed = [(path.lstrip("/"), number[path.rsplit("/", 1)[0]]) for path in paths]
    return from_list(f"sun397/{split}", folder, classes, listed, cache=cache)


def _caltech101(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    root = folder / "101_ObjectCategories"
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())
    draw = np.random.Generator(np.random.PCG64(CALTECH_SEED))
    listed = []
    for label, name in enumerate(classes):
        images = sorted(path.name for path in (root / name).glob("*.jpg"))
        order = draw.permutation(len(images)).tolist()
        chosen = order[:CALTECH_TRAIN_IMAGES] if split == "train" else order[CALTECH_TRAIN_IMAGES:]
        listed += [(f"101_ObjectCategories/{name}/{images[index]}", label) for index in sorted(chosen)]
    return from_list(f"caltech101/{split}", folder, classes, listed, cache=cache)


def _birdsnap(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    """The images of Birdsnap that could still be fetched: many are gone."""
    species, *lines = (line.split("\t") for line in _lines(folder / "species.txt"))
    name, number = species.index("common"), {line[species.index("id")]: label for label, line in enumerate(lines)}
    tested = {line.split("\t")[0] for line in _lines(folder / "test_images.txt")[1:]}
    columns, *images = (line.split("\t") for line in _lines(folder / "images.txt"))
    path, species_id = columns.index("path"), columns.index("species_id")
    listed = [
        (f"images/{line[path]}", number[line[species_id]])
        for line in images
        if (line[path] in tested) == (split == "val") and (folder / "images" / line[path]).is_file()
    ]
    return from_list(f"birdsnap/{split}", folder, [line[name] for line in lines], listed, cache=cache)


def _cub200(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    def column(file: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in _lines(folder / file)]

    wanted = "1" if split == "train" else "0"
    rows = zip(column("images.txt"), column("image_class_labels.txt"), column("train_test_split.txt"), strict=True)
    listed = [(f"images/{image}", int(label) - 1) for image, label, trained in rows if trained == wanted]
    return from_list(f"cub200/{split}", folder, column("classes.txt"), listed, cache=cache)


def _voc07(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    """Several classes an image; one that is only shown as difficult is not counted, as in VISSL."""
    parts = ("train", "val") if split == "train" else ("test",)
    images: list[str] = []
    columns = []
    for name in VOC_CLASSES:
        lines = [line.split() for part in parts for line in _lines(folder / f"ImageSets/Main/{name}_{part}.txt")]
        images = [image for image, _ in lines]
        columns.append([{1: 1, -1: 0, 0: -1}[int(present)] for _, present in lines])
    listed = [
        (f"JPEGImages/{image}.jpg", list(row)) for image, row in zip(images, zip(*columns, strict=True), strict=True)
    ]
    held = len(_lines(folder / f"ImageSets/Main/{VOC_CLASSES[0]}_val.txt")) if split == "train" else 0
    return from_list(f"voc07/{split}", folder, VOC_CLASSES, listed, _last(held, images, split), cache=cache)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _last(count: int, of: "list[str] | NDArray[np.int64]", split: Split) -> NDArray[np.int64] | None:
    """The row numbers of the last `count` images of a train split."""
    return np.arange(len(of) - count, len(of), dtype=np.int64) if split == "train" else None


CATALOG = {
    "food101": FetchedImages(
        description="101 dishes: 75,750 train, 25,250 test; top-1",
        source="Bossard et al., ECCV 2014; https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
        folder="food-101",
        needs=("meta/train.json", "meta/test.json", "images"),
        how=torchvision_command("Food101"),
        counts=(75_750, 25_250),
        read=_food101,
    ),
    "flowers102": FetchedImages(
        description="102 flowers: 2,040 train (1,020 of them for selection), 6,149 test; mean per class",
        source="Nilsback and Zisserman, ICVGIP 2008; https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
        folder="flowers-102",
        needs=("setid.mat", "imagelabels.mat", "jpg"),
        how=torchvision_command("Flowers102"),
        counts=(2_040, 6_149),
        read=_flowers102,
        metric="class_balanced",
    ),
    "pets": FetchedImages(
        description="37 breeds of cat and dog: 3,680 train, 3,669 test; mean per class",
        source="Parkhi et al., CVPR 2012; https://www.robots.ox.ac.uk/~vgg/data/pets",
        folder="oxford-iiit-pet",
        needs=("annotations/trainval.txt", "annotations/test.txt", "images"),
        how=torchvision_command("OxfordIIITPet"),
        counts=(3_680, 3_669),
        read=_pets,
        metric="class_balanced",
    ),
    "dtd": FetchedImages(
        description="47 textures, split 1: 3,760 train (1,880 of them for selection), 1,880 test; top-1",
        source="Cimpoi et al., CVPR 2014; https://www.robots.ox.ac.uk/~vgg/data/dtd",
        folder="dtd/dtd",
        needs=("labels/train1.txt", "labels/val1.txt", "labels/test1.txt", "images"),
        how=torchvision_command("DTD"),
        counts=(3_760, 1_880),
        read=_dtd,
    ),
    "aircraft": FetchedImages(
        description="100 aircraft variants: 6,667 train (3,333 of them for selection), 3,333 test; mean per class",
        source="Maji et al., https://arxiv.org/abs/1306.5151",
        folder="fgvc-aircraft-2013b",
        needs=("data/variants.txt", "data/images_variant_train.txt", "data/images_variant_test.txt", "data/images"),
        how=torchvision_command("FGVCAircraft"),
        counts=(6_667, 3_333),
        read=_aircraft,
        metric="class_balanced",
    ),
    "cars": FetchedImages(
        description="196 cars: 8,144 train, 8,041 test; top-1",
        source="Krause et al., 3dRR-13; the authors' page is gone",
        folder="stanford_cars",
        needs=(
            "devkit/cars_meta.mat",
            "devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat",
            "cars_train",
            "cars_test",
        ),
        how="its own address is gone: find a copy and lay it out as torchvision's StanfordCars says",
        counts=(8_144, 8_041),
        read=_cars,
    ),
    "sun397": FetchedImages(
        description="397 scenes, split 1: 19,850 train, 19,850 test; top-1",
        source="Xiao et al., CVPR 2010; https://vision.princeton.edu/projects/2010/SUN",
        folder="SUN397",
        needs=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
        how=f"{torchvision_command('SUN397')}, and unpack Partitions.zip of the same page in $CGH_DATA/SUN397",
        counts=(19_850, 19_850),
        read=_sun397,
    ),
    "caltech101": FetchedImages(
        description="102 objects, background among them: 3,060 train, 6,084 test; mean per class",
        source="Fei-Fei et al., 2004; https://data.caltech.edu/records/mzrjq-6wc02",
        folder="caltech101",
        needs=("101_ObjectCategories",),
        how=torchvision_command("Caltech101"),
        counts=(3_060, 6_084),
        read=_caltech101,
        metric="class_balanced",
    ),
    "birdsnap": FetchedImages(
        description="500 birds, the images still available (originally 47,386 train, 2,443 test); mean per class",
        source="Berg et al., CVPR 2014; http://thomasberg.org",
        folder="birdsnap",
        needs=("species.txt", "images.txt", "test_images.txt", "images"),
        how="unpack birdsnap.tgz of http://thomasberg.org in $CGH_DATA and run its get_birdsnap.py",
        read=_birdsnap,
        metric="class_balanced",
    ),
    "cub200": FetchedImages(
        description="200 birds: 5,994 train, 5,794 test; top-1",
        source="Wah et al., CNS-TR-2011-001; https://www.vision.caltech.edu/datasets/cub_200_2011",
        folder="CUB_200_2011",
        needs=("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images"),
        how="unpack CUB_200_2011.tgz of its page in $CGH_DATA",
        counts=(5_994, 5_794),
        read=_cub200,
    ),
    "voc07": FetchedImages(
        description="20 objects, multi-label: 5,011 train (2,510 of them for selection), 4,952 test; mAP",
        source="Everingham et al., VOC2007; http://host.robots.ox.ac.uk/pascal/VOC/voc2007",
        folder="VOCdevkit/VOC2007",
        needs=("ImageSets/Main/aeroplane_train.txt", "ImageSets/Main/aeroplane_test.txt", "JPEGImages"),
        how="unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar of its page in $CGH_DATA",
        counts=(5_011, 4_952),
        read=_voc07,
        metric="mAP",
    ),
}
