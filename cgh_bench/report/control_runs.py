"""Controls that are run with a table: evaluations without a network, and what lies in data may have told."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from cgh_bench import results, tasks
from cgh_bench.core.saved import load_arrays
from cgh_bench.data import DataPair
from cgh_bench.evaluation import Evaluation, evaluate, find_finished, prepare
from cgh_bench.reading.loading import load
from cgh_bench.report.controls import CONTROLS
from cgh_bench.report.definition import Definition
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.knn import KNN, RETRIEVED
from cgh_bench.workspace import Workspace

NEAR_DUPLICATE = 0.99
"""Cosine of the pixels, averaged to 16 x 16, from which two images count as one."""
NAMED = 3
"""The number of images that a line names."""


def run_controls(table: Definition, workspace: Workspace) -> list[str]:
    """Evaluate the controls in the columns that are kNN, which takes seconds; says what else was controlled.

    The first of these columns says the rest: with shuffled labels, of duplicates (both on raw pixels), and of labels
    that the neighbours of a table's backbones contradict.
    """
    names = dict.fromkeys(column.task for column in table.columns if isinstance(tasks.find(column.task), KNN))
    prepared = prepare(list(names), workspace)
    for evaluation, name in itertools.product(prepared, CONTROLS):
        checkpoint = load(name)
        if find_finished(evaluation, checkpoint, 0, workspace) is None:
            evaluate(evaluation, checkpoint, 0, workspace)
    return [
        line
        for evaluation in prepared[:1]
        for line in (*_checked(evaluation, workspace), *_label_noise(evaluation, workspace))
    ]


def _checked(evaluation: Evaluation, workspace: Workspace) -> list[str]:
    """What kNN on raw pixels says with shuffled labels, and of val images that are almost train images."""
    from cgh_bench.frozen.metrics import rank_by
    from cgh_bench.frozen.neighbours import shared_neighbours

    task = evaluation.task
    assert isinstance(evaluation.data, DataPair) and isinstance(task, KNN)
    train, val = task.features(load("control:pixels"), evaluation.data, Folders(workspace.root, workspace.cache))
    similarity, row = shared_neighbours(train.features, val.features, task.k)
    shuffled = np.random.default_rng(0).permutation(train.labels)
    ranked = rank_by(similarity, shuffled[row], val.labels, len(train.classes), task.k, task.temperature)
    chance = 100 * np.bincount(val.labels).max() / len(val.labels)
    error = 100 * math.sqrt(chance / 100 * (1 - chance / 100) / len(val.labels))
    state = "at chance" if ranked.top1 < chance + 4 * error else "ABOVE CHANCE: labels leak"
    same = 100 * float((similarity[:, 0] >= NEAR_DUPLICATE).mean())
    return [
        f"Shuffled labels, {evaluation.name}: {ranked.top1:.1f}, {state} (the largest class has {chance:.1f} %).",
        f"Near-duplicates, {evaluation.name}: {same:.1f} % of val images have a near-identical train image "
        f"(pixel cosine of at least {NEAR_DUPLICATE}).",
    ]


def _label_noise(evaluation: Evaluation, workspace: Workspace) -> Iterator[str]:
    """How many val images have nearest train images of one other class, for most of the trained backbones."""
    from cgh_bench.frozen.label_noise import contradicted

    data = evaluation.data
    assert isinstance(data, DataPair)
    runs = {
        run.checkpoint: workspace.root / run.work / "neighbours.npz"
        for run in results.read(workspace.store)[0]
        if run.work and (run.protocol, run.data) == (evaluation.protocol, data.fingerprint)
        if run.origin.get("source") != "random" and run.checkpoint_name not in CONTROLS
    }
    rows = [load_arrays(file)["row"] for file in runs.values() if file.is_file()]
    if not rows:
        return
    said = np.stack([contradicted(data.val.labels, data.train.labels[row]) for row in rows])
    most = np.flatnonzero((said >= 0).mean(axis=0) > 0.5).tolist()
    named = ", ".join(data.val.called(image) for image in most[:NAMED]) + ", …" * (len(most) > NAMED)
    yield (
        f"Label noise, {evaluation.name}: {len(most)} of {len(data.val)} val images have {RETRIEVED} nearest train "
        f"images of one other class, for most of {len(rows)} backbones{': ' * bool(most)}{named} "
        "(`cgh-bench data labels` lists them)."
    )
