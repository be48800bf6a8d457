"""Commands on the features of a backbone."""

from pathlib import Path

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError


@click.group(cls=options.Group)
def features() -> None:
    """Export the features of a frozen backbone."""


@features.command()
@click.argument("ckpt", metavar="CKPT")
@click.option("--data", required=True, metavar="DATASET", help="Dataset name or folder.")
@click.option("--out", "-o", type=options.PATH, required=True, help="NAME.npz, .npy, .safetensors or .parquet.")
@click.option("--feature", default="layer4", help="Which feature; layer4 is the global one of every backbone.")
@click.option("--resize", type=options.COUNT, default=256, metavar="N", help="Short side of the images in pixels.")
@click.option("--crop", type=options.COUNT, default=224, metavar="N", help="Side of the centre crop in pixels.")
@options.trust_code
def export(ckpt: str, data: str, out: Path, feature: str, resize: int, crop: int, trust_code: bool) -> None:
    """Write the features of a dataset, with labels and paths.

    Written are NAME.train.npz and NAME.val.npz, which `cgh-bench eval --features` and NumPy read.

    \b
    Examples:
      cgh-bench features export moco_v2_800ep.pth.tar --data photos -o photos.npz
      cgh-bench eval knn,linear --features photos.train.npz,photos.val.npz
    """
    (name,) = options.checkpoints((ckpt,))
    from cgh_bench.api import extracted
    from cgh_bench.data.transform import EvalTransform
    from cgh_bench.frozen.given import SUFFIXES, write_features
    from cgh_bench.reading.loading import load

    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: expected a name that ends in {' or '.join(SUFFIXES)}")
    checkpoint = load(name, trust_code=trust_code)
    for split in ("train", "val"):
        found = extracted(checkpoint, data, split, feature, EvalTransform(resize, crop))
        path = out.with_name(f"{out.stem}.{split}{out.suffix}")
        write_features(path, found.features, found.labels, classes=found.classes, paths=found.paths)
        print(f"wrote {path}: {len(found.labels):,} × {found.features.shape[1]}")
