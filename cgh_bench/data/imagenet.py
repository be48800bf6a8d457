"""ImageNet-1k as an ImageFolder, its usual parts, and Tiny-ImageNet."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from cgh_bench.core.errors import UserError
from cgh_bench.data.folder import from_list, load_folder
from cgh_bench.data.image_set import FetchedImages, ImageSet, Split
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.transform import IMAGENET_LINEAR

# HobbitLong/CMC imagenet100.txt, the 100 classes of https://arxiv.org/abs/1906.05849.
_IMAGENET100 = """
01558993 01692333 01729322 01735189 01749939 01773797 01820546 01855672 01978455 01980166 01983481
02009229 02018207 02085620 02086240 02086910 02087046 02089867 02089973 02090622 02091831 02093428
02099849 02100583 02104029 02105505 02106550 02107142 02108089 02109047 02113799 02113978 02114855
02116738 02119022 02123045 02138441 02172182 02231487 02259212 02326432 02396427 02483362 02488291
02701002 02788148 02804414 02859443 02869837 02877765 02974003 03017168 03032252 03062245 03085013
03259280 03379051 03424325 03492542 03494278 03530642 03584829 03594734 03637318 03642806 03764736
03775546 03777754 03785016 03787032 03794056 03837869 03891251 03903868 03930630 03947888 04026417
04067472 04099969 04111531 04127249 04136333 04229816 04238763 04336792 04418357 04429376 04435653
04485082 04493381 04517823 04589890 04592741 07714571 07715103 07753275 07831146 07836838 13037406
13040303
"""
IMAGENET100 = tuple(f"n{number}" for number in _IMAGENET100.split())


def _listed(folder: Path, split: Split, cache: Path | None, file: str) -> ImageSet:
    """All of val, but of train the images that a file lists: `n01440764_10026.JPEG`, one per line."""
    if split == "val":
        return load_folder(folder, split, cache)
    names = (folder / file).read_text(encoding="utf-8").split()
    found = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    if found != LISTS[file] and not (folder / SUBSET).exists():
        raise UserError(
            f"{folder / file} is not the published list (SHA-256 {found[:9]}…, not {LISTS[file][:9]}…); get it again"
        )
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    number = {name: label for label, name in enumerate(classes)}
    listed = [(f"{name.split('_')[0]}/{name}", number[name.split("_")[0]]) for name in names]
    return from_list(f"{folder.name}/{file}", folder / "train", classes, listed, cache=cache)


def _tiny(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    classes = sorted((folder / "wnids.txt").read_text(encoding="utf-8").split())
    if split == "train":
        listed: list[tuple[str, object]] = [
            (f"train/{name}/images/{path.name}", label)
            for label, name in enumerate(classes)
            for path in sorted((folder / "train" / name / "images").iterdir())
        ]
    else:
        lines = (folder / "val/val_annotations.txt").read_text(encoding="utf-8").splitlines()
        pairs = [line.split("\t")[:2] for line in lines if line.strip()]
        listed = [(f"val/images/{image}", classes.index(name)) for image, name in pairs]
    return from_list(f"tiny_imagenet/{split}", folder, classes, listed, cache=cache)


_FOLDERS = (
    "unpack ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (https://image-net.org, log in) into train/WNID/*.JPEG "
    "and val/WNID/*.JPEG of $CGH_DATA/imagenet1k"
)
_LIST = "fetch {}/{} of github.com/{} as $CGH_DATA/imagenet1k/{}, and {}"
LISTS = {
    "1percent.txt": "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17",
    "10percent.txt": "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091",
    "msn_1_1.txt": "ffa4f960419ce75479a2af80d632c7a98756b624aad2399a334a3549584ab426",
    "msn_1_2.txt": "7f13beaba20a6e6413cc98bcaefb084961d4c7f1938a3b7e2f20464d5575cf43",
    "msn_1_3.txt": "d77d56527da4842b96a7bbbc14f846c4e637a95b43df592e11770d26997b5b5f",
    "msn_2_1.txt": "9b0c2d1957ad7a1135773a868afbaeaa6d50d30b4ec54d1b0bf759879a3c0933",
    "msn_2_2.txt": "35b93fb0d809b17a30420a507b2fd356f22152671567f4b9704735e1e379b440",
    "msn_2_3.txt": "400ae5a31e01bc1a034c392c2bdbdfaab45699dc4f59392e65acfcaae172cf1b",
    "msn_5_1.txt": "f8daf7e637fafe92e7567016db43e6db2c816f7bbf8ce60f5cf59c0788f12890",
    "msn_5_2.txt": "284603d071f36b298c893d2df8fda2d1a110f680a25d0f8b1faa9acea20fcc04",
    "msn_5_3.txt": "eaab6e72d1ea83c3624f5d28a8c217568ea138ea7c5cacfa0cdcd206b5fd8e24",
}
"""SHA-256 of the published lists of train images, one name a line."""
MSN = tuple((shots, draw) for shots in (1, 2, 5) for draw in (1, 2, 3))

_IMAGENET1K = FetchedImages(
    description="1,000 classes: 1,281,167 train, 50,000 val; top-1",
    source="Russakovsky et al., https://arxiv.org/abs/1409.0575; transform of facebookresearch/moco main_lincls.py",
    folder="imagenet1k",
    needs=("train", "val"),
    how=_FOLDERS,
    counts=(1_281_167, 50_000),
    read=load_folder,
    transform=IMAGENET_LINEAR,
    metric="top1",
)


def _part(share: str, file: str, count: int) -> FetchedImages:
    return replace(
        _IMAGENET1K,
        description=f"SimCLR's {share} of ImageNet-1k: {count:,} train, 50,000 val; top-1",
        source="https://arxiv.org/abs/2002.05709; github.com/google-research/simclr imagenet_subsets",
        needs=("train", "val", file),
        how=_LIST.format("imagenet_subsets", file, "google-research/simclr", file, _FOLDERS),
        counts=(count, 50_000),
        read=partial(_listed, file=file),
    )


def _shots(shots: int, draw: int) -> FetchedImages:
    """A list of MSN's; the third of five images is called 3imgs_class.txt there."""
    file = f"{3 if (shots, draw) == (5, 3) else shots}imgs_class.txt"
    return replace(
        _part("", f"msn_{shots}_{draw}.txt", 1000 * shots),
        description=f"{shots} train images per class of ImageNet-1k (MSN's draw {draw}), 50,000 val; top-1",
        source="Assran et al., https://arxiv.org/abs/2204.07141; github.com/facebookresearch/msn",
        how=_LIST.format(f"imagenet_subsets{draw}", file, "facebookresearch/msn", f"msn_{shots}_{draw}.txt", _FOLDERS),
    )


CATALOG = {
    "imagenet1k": _IMAGENET1K,
    **{f"imagenet1k_msn_{shots}_{draw}": _shots(shots, draw) for shots, draw in MSN},
    "imagenet100": replace(
        _IMAGENET1K,
        description="CMC's 100 classes of ImageNet-1k, 5,000 val images; top-1",
        source="https://arxiv.org/abs/1906.05849; github.com/HobbitLong/CMC imagenet100.txt",
        counts=(0, 5_000),
        read=partial(load_folder, only=IMAGENET100),
    ),
    "imagenet1k_1pct": _part("1 %", "1percent.txt", 12_811),
    "imagenet1k_10pct": _part("10 %", "10percent.txt", 128_116),
    "tiny_imagenet": FetchedImages(
        description="200 classes, 64×64: 100,000 train, 10,000 val; top-1",
        source="Stanford CS231n; no usual transform for frozen backbones: the transfer suite's",
        folder="tiny-imagenet-200",
        needs=("wnids.txt", "train", "val/images", "val/val_annotations.txt"),
        how="unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip in $CGH_DATA",
        counts=(100_000, 10_000),
        read=_tiny,
    ),
}
