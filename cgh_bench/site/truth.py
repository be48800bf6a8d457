"""The ground truth of a run's dataset, if it is still there and unchanged, and what the run measured."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.data import ground_truth
from cgh_bench.data.decoding import UNDECODABLE
from cgh_bench.data.dense import DenseData, Kind
from cgh_bench.data.ground_truth import Maps, Objects
from cgh_bench.data.own.find import locate
from cgh_bench.results import Result

DAMAGED = (*UNDECODABLE, AttributeError, AssertionError, RecursionError, MemoryError, zipfile.BadZipFile)
"""What reading a damaged picture, array, JSON or XML raises, or one of another form than expected."""
INSTANCES = "predictions/*_pred.txt"


def objects(run: Result, work: Path, notes: list[str]) -> Objects | None:
    """The objects of a run's dataset; None, with a note, if it is not there or damaged."""
    data = located(run, "objects", work, notes)
    with noting(notes, f"{run.task}: no pictures of its predictions; its dataset is damaged"):
        return ground_truth.objects(str(run.config["data"]), data) if data else None
    return None


def maps(run: Result, folder: Path, work: Path, notes: list[str]) -> Maps | None:
    """The maps of the dataset of the run in `folder`; None, with a note, if it is not there or damaged."""
    data = located(run, "maps", work, notes)
    with noting(notes, f"{run.task}: no pictures of its predictions; its dataset is damaged"):
        return ground_truth.maps(str(run.config["data"]), data, metrics(folder)) if data else None
    return None


def left_instances(folder: Path) -> bool:
    """Whether a run in `folder` left instances in Cityscapes' form: a list for each image, and a PNG for each mask."""
    return next(folder.glob(INSTANCES), None) is not None


@contextmanager
def noting(notes: list[str], what: str) -> Iterator[None]:
    """Run the block; if a file that it reads is damaged, add `what` and the reason to `notes` and carry on."""
    try:
        yield
    except DAMAGED as error:
        reason = one_line(error)
        notes.append(f"{what} ({type(error).__name__}{': ' * bool(reason)}{reason}).")


def located(run: Result, kind: Kind, work: Path, notes: list[str]) -> DenseData | None:
    """Where the dataset of a run is; None, with a note, if it is missing or has changed since the run."""
    name = str(run.config.get("data"))
    try:
        found = locate(name, kind, work / "cache")
    except UserError as error:
        notes.append(f"{run.task}: no pictures of its predictions; {error}.")
        return None
    if run.data != found.fingerprint:
        notes.append(f"{run.task}: no pictures of its predictions; {name} has changed since the run.")
        return None
    return found


def metrics(folder: Path) -> dict[str, float]:
    """Everything that a run in `folder` measured, each class too; empty if that is missing or damaged."""
    try:
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except DAMAGED:
        return {}
    return {name: v for name, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}
