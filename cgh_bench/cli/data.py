"""Commands on datasets."""

from pathlib import Path

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable


@click.group(cls=options.Group)
def data() -> None:
    """Check datasets before they are used."""


@data.command()
@click.argument("name", metavar="DATASET")
@options.work
def check(name: str, work: Path) -> None:
    """Check every file of a dataset.

    DATASET is a name (`cgh-bench list data`, or coco, voc0712, … for detection and segmentation) or a folder of images
    by class, in COCO's, VOC's or YOLO's form, or of images and masks. Images are decoded, maps and annotations read,
    sizes, classes, duplicates and splits compared. What was read is remembered in WORK/cache until a file changes. Each
    problem is one line; with any, the exit code is 2.

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
            print(f"{each}: no problem found")
    count = sum(len(checked.problems) for checked in found.values())
    if count:
        raise UserError(f"{count} problem{'s' * (count > 1)} in {name}; fix the files above")
