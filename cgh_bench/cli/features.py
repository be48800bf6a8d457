"""Commands on the features of a backbone."""

import itertools
from pathlib import Path

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable


@click.group(cls=options.Group)
def features() -> None:
    """Export or compare features of frozen backbones."""


@features.command()
@click.argument("ckpt", metavar="CKPT")
@click.option("--data", required=True, metavar="DATASET", help="Dataset name or folder.")
@click.option("--out", "-o", type=options.PATH, required=True, help="NAME.npz, .npy, .safetensors or .parquet.")
@click.option("--feature", default="layer4", help="Which feature; layer4 is the global one of every backbone.")
@click.option("--resize", type=options.COUNT, default=256, metavar="N", help="Short side of the images in pixels.")
@click.option("--crop", type=options.COUNT, default=224, metavar="N", help="Side of the centre crop in pixels.")
@options.limits
@options.trust_code
def export(ckpt: str, data: str, out: Path, feature: str, resize: int, crop: int, trust_code: bool) -> None:
    """Write the features of a dataset, with labels and paths.

    Writes NAME.train.npz and NAME.val.npz, which `cgh-bench eval --features` and NumPy can read.

    \b
    Examples:
      cgh-bench features export moco_v2_800ep.pth.tar --data photos -o photos.npz
      cgh-bench eval knn,linear --features photos.train.npz,photos.val.npz
    """
    (name,) = options.checkpoints((ckpt,))
    from cgh_bench import api
    from cgh_bench.data.transform import EvalTransform
    from cgh_bench.frozen.given import SUFFIXES, write_features
    from cgh_bench.reading.loading import load

    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: the name must end in {' or '.join(SUFFIXES)}")
    checkpoint = load(name, trust_code=trust_code)
    transform = EvalTransform(resize, crop)
    for split in ("train", "val"):
        found = api.features(checkpoint, data, split, feature=feature, transform=transform, progress=True)
        path = out.with_name(f"{out.stem}.{split}{out.suffix}")
        write_features(path, found.features, found.labels, classes=found.classes, paths=found.paths)
        print(f"wrote {path}: {len(found.labels):,} × {found.features.shape[1]}")


@features.command()
@click.argument("ckpts", metavar="CKPT CKPT…", nargs=-1, required=True)
@click.option("--data", required=True, metavar="DATASET", help="Dataset name or folder; its val images are used.")
@click.option("--feature", default="layer4", help="Which feature; layer4 is the global one of every backbone.")
@options.count("--k", 10, "Neighbours of each image.")
@click.option("--resize", type=options.COUNT, default=256, metavar="N", help="Short side of the images in pixels.")
@click.option("--crop", type=options.COUNT, default=224, metavar="N", help="Side of the centre crop in pixels.")
@options.limits
@options.trust_code
def compare(ckpts: tuple[str, ...], data: str, feature: str, k: int, resize: int, crop: int, trust_code: bool) -> None:
    """Measure the similarity of backbones' features on the same images.

    Prints for every pair: linear CKA (1: equal up to rotation and scale; about 0: unrelated), and the share of nearest
    neighbours that both agree on, with its chance level. No labels are used.

    \b
    Example:
      cgh-bench features compare moco_v2_800ep.pth.tar timm/resnet50.a1_in1k --data photos
    """
    names = options.checkpoints(ckpts)
    if len(names) < 2:
        raise UserError("features compare needs two or more checkpoints")
    from cgh_bench import api
    from cgh_bench.data.transform import EvalTransform
    from cgh_bench.frozen.similarity import cka, mutual_neighbours
    from cgh_bench.reading.loading import load

    banks, transform = {}, EvalTransform(resize, crop)
    for name in names:
        checkpoint = load(name, trust_code=trust_code)
        banks[name] = api.features(checkpoint, data, feature=feature, transform=transform, progress=True)
    count = len(banks[names[0]].features)
    print(f"{count:,} val images of {data}; mutual kNN by chance: {100 * k / max(1, count - 1):.1f} %")
    for first, second in itertools.combinations(names, 2):
        a, b = banks[first].features, banks[second].features
        agreed = 100 * mutual_neighbours(a, b, k)
        print(f"{printable(first)}  {printable(second)}  CKA {cka(a, b):.3f}  mutual kNN (k {k}) {agreed:.1f} %")
