"""Commands on datasets."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable

if TYPE_CHECKING:
    from cgh_bench.data.image_set import Split


@click.group(cls=options.Group)
def data() -> None:
    """Check datasets, find duplicates and wrong labels, reduce images."""


@data.command()
@click.argument("name", metavar="DATASET")
@options.work
def check(name: str, work: Path) -> None:
    """Check every file of a dataset.

    DATASET is a name (`cgh-bench list data`, or coco, voc0712, … for detection and segmentation) or a folder: images by
    class, COCO, VOC or YOLO format, or images and masks. Decodes images, reads maps and annotations, and checks sizes,
    classes, duplicates and splits. Checked files are remembered in WORK/cache until they change. Prints one line per
    problem; exits 2 if there are any.

    \b
    Examples:
      cgh-bench data check coco
      cgh-bench data check /data/photos
      cgh-bench data check my_coco
    """
    from cgh_bench.data import data_root
    from cgh_bench.data.checking import check
    from cgh_bench.workspace import Workspace

    found = check(name, data_root().resolve(), Workspace(work).cache)
    for each, checked in found.items():
        for problem in checked.problems:
            print(f"{each}: {printable(problem)}")
        for note in checked.notes:
            print(f"{each}: note: {printable(note)}")
        if not checked.problems:
            print(f"{each}: no problems found")
    count = sum(len(checked.problems) for checked in found.values())
    if count:
        raise UserError(f"{count} problem{'s' * (count > 1)} in {name}; fix the files above")


@data.command()
@click.argument("source", metavar="FOLDER", type=options.PATH)
@click.option("--out", "-o", type=options.PATH, required=True, metavar="COPY", help="Folder to write to.")
@options.count("--side", 320, "Shorter side in pixels; smaller images are copied unchanged.", least=16)
@options.dry_run
def prepare(source: Path, out: Path, side: int, dry_run: bool) -> None:
    """Copy a folder of images, reducing large ones.

    Helps with slow disks, or when few CPU cores feed a fast GPU. File names stay the same; an interrupted copy resumes.
    The copy has other pixels and counts as another dataset: use it with --data (or pretrain --set data=COPY), and keep
    the original for published protocols.

    \b
    Examples:
      cgh-bench data prepare /data/photos -o /fast/photos-320 --dry-run
      cgh-bench data prepare /data/imagenet1k -o /fast/imagenet1k-256 --side 256
      cgh-bench pretrain cgh_r50_in1k_200ep --set data=/fast/imagenet1k-256
    """
    from cgh_bench.data.preparing import Preparation

    preparation = Preparation(source, out, side)
    if dry_run:
        print(preparation.plan())
    else:
        print(f"{out}: {preparation.run():,} files")


@data.command()
@click.argument("name", metavar="A")
@click.argument("other", metavar="[B]", required=False)
@click.option("--split", default="val", metavar="SPLIT", help="Split of A, if it has splits: val or train.")
@click.option("--other-split", default="train", metavar="SPLIT", help="Split of B: train or val.")
@click.option(
    "--ckpt", default="control:pixels", metavar="CKPT", help="Backbone whose features are compared (224 pixels)."
)
@click.option(
    "--least", type=click.FloatRange(0, 1), default=0.99, metavar="C", help="Minimum cosine similarity of duplicates."
)
@click.option("--out", "-o", type=options.PATH, help="CSV file of all pairs.")
@options.work
def duplicates(
    name: str,
    other: str | None,
    split: str,
    other_split: str,
    ckpt: str,
    least: float,
    out: Path | None,
    work: Path,
) -> None:
    """Find images of A that are also in B, or duplicates within A.

    A and B are datasets or folders. By default the val images of A (used for evaluation) are compared with the train
    images of B (used for pretraining); for a folder without splits, all images are used. Pixels, averaged to 16 x 16,
    find copies in other sizes and formats; a backbone (--ckpt) with a lower --least also finds crops and colour
    changes.

    \b
    Examples:
      cgh-bench data duplicates animals animals
      cgh-bench data duplicates /data/photos
      cgh-bench data duplicates /data/photos imagenet1k --ckpt timm/resnet50.a1_in1k --least 0.95 -o pairs.csv
    """
    from cgh_bench.core.progress import showing
    from cgh_bench.data import any_images
    from cgh_bench.frozen import duplicates as search
    from cgh_bench.reading.loading import load as load_checkpoint
    from cgh_bench.workspace import Workspace

    cache = Workspace(work).cache
    checkpoint = load_checkpoint(ckpt)
    images = any_images(name, cast("Split", split), cache)
    others = any_images(other, cast("Split", other_split), cache) if other else None
    with showing(True):
        size = 64 if ckpt.startswith("control:") else 224
        found = search.duplicates(images, others, checkpoint, size, least, cache / "features")
    among = images if others is None else others
    lines = [(images.called(one), among.called(two), f"{similarity:.4f}") for one, two, similarity in found]
    count = len({one for one, _, _ in found})
    where = "there twice" if others is None else f"among the {len(others):,} images of {others.name}"
    print(
        f"{count:,} of {len(images):,} images of {images.name} ({100 * count / len(images):.1f} %) are {where}, or "
        f"almost (cosine {least:g} or more of {ckpt})"
    )
    for line in lines[:5]:
        print(printable("  " + " = ".join(line[:2]) + f"  {line[2]}"))
    if out:
        _write_csv(out, [("image", "other", "cosine"), *lines])


@data.command()
@click.argument("name", metavar="DATASET")
@click.option("--ckpt", "ckpts", multiple=True, required=True, metavar="CKPT", help="Backbone; may be repeated.")
@click.option("--split", default="val", metavar="SPLIT", help="Split to check: val or train.")
@options.count("--k", 10, "Number of neighbours that must all have one other label.")
@click.option("--out", "-o", type=options.PATH, help="CSV file for all images found.")
@options.work
def labels(name: str, ckpts: tuple[str, ...], split: str, k: int, out: Path | None, work: Path) -> None:
    """Find images whose label may be wrong.

    Lists the images whose K nearest train images all have one other label, according to every --ckpt (224 pixels). It
    is only a hint, because a backbone that confuses two classes has the same effect: look at the images.

    \b
    Examples:
      cgh-bench data labels photos --ckpt timm/resnet50.a1_in1k
      cgh-bench data labels photos --split train --ckpt moco_v2.pth --ckpt timm/resnet50.a1_in1k -o suspects.csv
    """
    import numpy as np

    from cgh_bench.core.progress import showing
    from cgh_bench.data import load
    from cgh_bench.frozen.label_noise import suspects
    from cgh_bench.reading.loading import load as load_checkpoint
    from cgh_bench.workspace import Workspace

    cache = Workspace(work).cache
    checkpoints = [load_checkpoint(ckpt) for ckpt in options.checkpoints(ckpts)]
    bank = load(name, "train", cache=cache)
    images = bank if split == "train" else load(name, cast("Split", split), cache=cache)
    with showing(True):
        said = np.stack([suspects(images, bank, each, 224, k, cache / "features") for each in checkpoints])
    agreed = np.flatnonzero((said[0] >= 0) & (said == said[0]).all(axis=0)).tolist()
    lines = [(images.called(n), images.classes[images.labels[n]], images.classes[said[0, n]]) for n in agreed]
    print(
        f"{len(lines):,} of {len(images):,} {split} images of {name} ({100 * len(lines) / len(images):.1f} %) have {k} "
        f"nearest train images of one other class, by {', '.join(checkpoint.name for checkpoint in checkpoints)}"
    )
    for path, label, other in () if out else lines:
        print(printable(f"  {path}  {label}, neighbours: {other}"))
    if out:
        _write_csv(out, [("image", "label", "neighbours"), *lines])


def _write_csv(out: Path, lines: Sequence[Sequence[str]]) -> None:
    from cgh_bench.core.files import write_text

    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(lines)
    write_text(out, table.getvalue())
