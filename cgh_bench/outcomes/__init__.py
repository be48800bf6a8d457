"""What a run answered for each image: one file per run, from which its numbers can be computed again.

`outcomes.npz` holds `about` (JSON: version, kind, set, order, classes, measures), `images` (one id a line) and the
arrays of its kind, one file here per kind; docs/results.md describes it for other readers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgh_bench.core.errors import UserError, one_line
from cgh_bench.core.saved import load_arrays
from cgh_bench.outcomes.base import FILE, VERSION, Images, Outcomes
from cgh_bench.outcomes.classification import Classification
from cgh_bench.outcomes.detection import Detection
from cgh_bench.outcomes.multi_label import MultiLabel
from cgh_bench.outcomes.scores import Scores
from cgh_bench.outcomes.segmentation import Segmentation
from cgh_bench.results import Result

__all__ = ["FILE", "Outcomes", "load", "of_run"]

KINDS: Mapping[str, type[Outcomes]] = {
    kind.KIND: kind for kind in (Classification, MultiLabel, Scores, Segmentation, Detection)
}


def of_run(result: Result, root: Path) -> Outcomes:
    """The outcomes that a run left in its folder below `root`, that of the results.

    Raises:
        UserError: it left none, with how to make them, or they are damaged.
    """
    try:
        if not result.work:
            raise FileNotFoundError
        return load(root / result.work)
    except FileNotFoundError:
        how = "another tool measured it" if result.imported else f"run `cgh-bench eval {result.task} --again` on it"
        what = f"{result.task} of {result.checkpoint_name}, seed {result.seed}"
        raise UserError(f"{what} has no per-image predictions ({FILE}); {how}") from None


def load(folder: Path) -> Outcomes:
    """The outcomes that a run left in `folder`.

    Raises:
        FileNotFoundError: it left none.
        UserError: the file is damaged, or of another version.
    """
    path = folder / FILE
    try:
        stored = load_arrays(path)
        about, ids = (stored.pop(name).tobytes().decode() for name in ("about", "images"))
        return _read(json.loads(about), tuple(ids.split("\n")), stored, path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{path} is damaged ({reason}); run that evaluation again") from None


def _read(about: Mapping[str, Any], ids: tuple[str, ...], arrays: dict[str, Any], path: Path) -> Outcomes:
    if about["version"] != VERSION:
        raise UserError(f"{path} has version {about['version']}; this cgh-bench reads version {VERSION}")
    wide = {name: array.astype(np.int64) if array.dtype.kind in "iu" else array for name, array in arrays.items()}
    common: dict[str, Any] = {
        "images": Images(about["set"], ids, about["order"]),
        "classes": tuple(about["classes"]),
        "measures": about["measures"],
    }
    found = KINDS[about["kind"]].restored(wide, **common)
    first = getattr(found, "target", None)
    if first is not None and len(first) != len(ids):
        raise ValueError(f"{len(first)} targets of {len(ids)} images")
    return found
