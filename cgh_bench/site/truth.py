"""The ground truth of a run's dataset, if it is still there and unchanged, and what the run measured."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cgh_bench.core.errors import UserError
from cgh_bench.data import dense, ground_truth
from cgh_bench.data.decoding import UNDECODABLE
from cgh_bench.data.ground_truth import Maps, Objects
from cgh_bench.results import Result

DAMAGED = (*UNDECODABLE, AttributeError, AssertionError, RecursionError, MemoryError, zipfile.BadZipFile)
"""What reading a damaged picture, array, JSON or XML raises, or one of another form than expected."""
Truth = TypeVar("Truth", Objects, Maps)


def read(run: Result, work: Path, notes: list[str], reader: Callable[[str, Path], Truth | None]) -> Truth | None:
    """What the `reader` (`objects`, `maps`) finds in a run's dataset; None if nothing, with a note if it is damaged."""
    place = folder(run, work, notes)
    with noting(notes, f"{run.task}: no pictures of its predictions; its dataset is damaged"):
        return reader(str(run.config["data"]), place) if place else None
    return None


@contextmanager
def noting(notes: list[str], what: str) -> Iterator[None]:
    """Run the block; if a file that it reads is damaged, add `what` and the reason to `notes` and carry on."""
    try:
        yield
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        notes.append(f"{what} ({type(error).__name__}{': ' * bool(reason)}{reason}).")


def folder(run: Result, work: Path, notes: list[str]) -> Path | None:
    """Where the dataset of a run is; None, with a note, if it is missing or has changed since the run."""
    name = str(run.config.get("data"))
    try:
        located = dense.locate(name, work / "cache")
    except UserError as error:
        notes.append(f"{run.task}: no pictures of its predictions; {error}.")
        return None
    if run.data != located.fingerprint:
        notes.append(f"{run.task}: no pictures of its predictions; {name} has changed since the run.")
        return None
    return ground_truth.folder(name, located)


def metrics(folder: Path) -> dict[str, float]:
    """Everything that a run in `folder` measured, each class too; empty if that is missing or damaged."""
    try:
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except DAMAGED:
        return {}
    return {name: v for name, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}
