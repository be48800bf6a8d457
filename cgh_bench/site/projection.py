"""Frozen features of val images in the plane, by t-SNE, from the features that an evaluation left in the cache."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench import data
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.frozen.features import bank_key
from cgh_bench.results import Result
from cgh_bench.site import charts
from cgh_bench.site.charts import Chart

POINTS = 800
"""Images that are projected, drawn from all by a fixed seed: more would only take longer."""
PERPLEXITY = 30


def project(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) to (N, 2): t-SNE of unit vectors, the same on every call.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 9 (2008).
    """
    from sklearn.manifold import TSNE

    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    plane: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(unit)
    return plane


def draw(run: Result, task: Any, cache: Path) -> list[Chart]:
    """The projection for a run of a task that reads frozen features; nothing where these are no longer cached.

    Args:
        run: of which checkpoint.
        task: with `transform` and `feature`, else nothing is drawn.
        cache: the workspace's; the plane is kept there.
    """
    if not (hasattr(task, "transform") and hasattr(task, "feature")) or not (cache / "features").is_dir():
        return []
    try:
        val = data.load(task.data, "val")
    except UserError:
        return []
    key = bank_key(run.checkpoint, val, task.transform, tuple(sorted(set(task.feature.split("+")))))
    bank = cache / "features" / key
    if not (bank / "done.json").is_file() or len(val) < 4:
        return []
    rows = np.sort(np.random.default_rng(0).permutation(len(val))[:POINTS])
    kept = cache / "projections" / f"{key}.json"
    if not kept.is_file():
        plane = project(np.load(bank / "features.npy", mmap_mode="r")[rows])
        write_text(kept, json.dumps(plane.round(2).tolist()))
    plane = np.asarray(json.loads(kept.read_text(encoding="utf-8")))
    title = f"{task.feature} of {len(rows)} val images of {val.name}"
    return [charts.plane_chart(title, plane, np.asarray(val.labels)[rows], val.classes)]
