"""From runs to a cell: which results count, and which of them are independent of each other."""

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cgh_bench.report.cells import Cell
from cgh_bench.results import Result


def newest_data(results: Iterable[Result], protocols: Collection[str]) -> dict[str, str]:
    """For each of the `protocols` the fingerprint of the data that its newest result was measured on.

    An imported result knows no fingerprint; who named its protocol vouches for its data.
    """
    return {r.protocol: r.data for r in _by_time(results) if r.protocol in protocols and not r.overridden}


def usable(mine: Sequence[Result], data: Mapping[str, str], label: str, notes: list[str]) -> list[Result]:
    """The results of one row that may fill its cells; for the others a note says why not.

    A recipe trained again with the same seed replaces the earlier training in every column, and so does a checkpoint
    of the same name where no seed is known: the figures of one row are those of the same weights.

    Args:
        mine: of the row, in the order of the store.
        data: the wanted protocols, each with the fingerprint of the data that counts.
        label: of the row, for the notes.
        notes: is appended to.
    """
    left_over = list(mine)

    def keep(condition: Callable[[Result], bool], reason: str) -> list[Result]:
        kept = [result for result in left_over if condition(result)]
        if left := len(left_over) - len(kept):
            notes.append(f"{label}: {left} result{'s' if left > 1 else ''} {reason} left out.")
        return kept

    left_over = keep(lambda result: not result.overridden, "with overridden settings")
    left_over = keep(lambda result: result.protocol in data or not result.imported, "imported without a protocol")
    left_over = keep(lambda result: result.protocol in data, "under another protocol than today's")
    left_over = keep(
        lambda result: result.imported or result.data == data[result.protocol], "on other data than the newest"
    )
    current = {_training(result): result.checkpoint for result in _by_time(left_over)}
    return keep(lambda result: current[_training(result)] == result.checkpoint, "of weights that newer ones replace")


def cell(usable: Sequence[Result], protocol: str, metric: str) -> Cell:
    """The latest result of each (checkpoint, evaluation seed), as one value per replicate.

    A replicate is a training of the backbone; repeats of the task on the same weights are not independent of each
    other, so they are averaged first. Only where there is a single backbone its repeats are the replicates.
    """
    runs = {
        (result.checkpoint, result.seed): result
        for result in _by_time(usable)
        if result.protocol == protocol and metric in result.metrics
    }
    ordered = tuple(sorted(runs.values(), key=lambda result: (_training(result), result.seed)))
    by_checkpoint: dict[str, list[float]] = {}
    for result in ordered:
        by_checkpoint.setdefault(result.checkpoint, []).append(result.metrics[metric])
    if len(by_checkpoint) > 1:
        means = tuple(statistics.fmean(values) for values in by_checkpoint.values())
        return Cell(ordered, means, "pretraining seed")
    values = tuple(value for values in by_checkpoint.values() for value in values)
    return Cell(ordered, values, "evaluation seed")


def _training(result: Result) -> str:
    """What tells one training from another: its seed. Without one nothing says that two are independent."""
    return str(result.origin.get("seed", "")).rjust(12)


def _by_time(results: Iterable[Result]) -> list[Result]:
    """The oldest first; what was imported counts as older than what was measured here."""
    return sorted(results, key=lambda result: (not result.imported, result.started))
