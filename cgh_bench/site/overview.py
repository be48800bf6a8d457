"""The order of the backbones over all protocols that they share, for the first page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cgh_bench import outcomes
from cgh_bench.core.errors import UserError
from cgh_bench.report.ranking import Ranking, rank
from cgh_bench.report.sides import Side
from cgh_bench.site.boards import Board, Subject

LEAST, MOST = 3, 12
"""The fewest and the most backbones that are ranked: the first in the store."""
BAR = 160
"""Width of the drawing of an interval, in its own units."""


@dataclass(frozen=True)
class Line:
    """One backbone of the ranking."""

    name: str
    href: str
    mean_rank: float
    strength: tuple[float, float, float]
    """Its value and its interval: value, low, high."""
    bar: tuple[float, float, float]
    """The same as places on a drawing of `BAR` units."""
    wins: tuple[float, ...]
    """Per cent right where exactly one of the two is right, beside every backbone in order; NaN for itself."""


@dataclass(frozen=True)
class Overview:
    """Several backbones over the protocols that all of them have answers in."""

    protocols: tuple[str, ...]
    critical: float | None
    """See `Ranking`."""
    lines: tuple[Line, ...]
    """The best mean rank first."""


def overview(known: Sequence[Board], measured: Sequence[Subject], root: Path) -> Overview | None:
    """The ranking of the backbones that share most protocols; None for fewer than `LEAST`.

    Args:
        known: all protocols.
        measured: all backbones.
        root: the folder of the result store.
    """
    rows = {board.id: _sides(board, measured[:MOST], root) for board in known if board.ours}
    names: list[str] = []
    shared: list[str] = []
    for row in rows.values():
        boards = [board for board, other in rows.items() if row.keys() <= other.keys()]
        if len(row) >= LEAST and len(row) * len(boards) > len(names) * len(shared):
            names, shared = list(row), boards
    if not names:
        return None
    ranking = rank([[rows[board][name] for name in names] for board in shared])
    subjects = {subject.label: subject for subject in measured}
    titles = tuple(board.title for board in known if board.id in shared)
    return Overview(titles, ranking.critical, _lines(ranking, subjects))


def _sides(board: Board, measured: Sequence[Subject], root: Path) -> dict[str, Side]:
    """The runs of each backbone with what the first of them answered, of those that answered for the same images."""
    found: dict[str, Side] = {}
    for subject in measured:
        cell = subject.cells.get((board.id, board.metrics[0].name))
        path = root / cell.runs[0].work if cell and cell.runs[0].work else None
        if cell is None or path is None or not (path / outcomes.FILE).is_file():
            continue
        try:
            kept = outcomes.load(path)
        except UserError:
            continue  # the page of the backbone says that it is damaged
        first = next(iter(found.values()), None)
        if board.metrics[0].name in kept.measures and (not first or first.kept[0].images.order == kept.images.order):
            found[subject.label] = Side(subject.label, tuple(cell.runs), (kept,))
    return found


def _lines(ranking: Ranking, subjects: dict[str, Subject]) -> tuple[Line, ...]:
    low, high = ranking.low.min(), ranking.high.max()
    order = ranking.mean_rank.argsort(kind="stable").tolist()

    def place(value: float) -> float:
        return round(float(4 + (BAR - 8) * (value - low) / max(high - low, 1e-9)), 1)

    found = []
    for row in order:
        strength = float(ranking.strength[row]), float(ranking.low[row]), float(ranking.high[row])
        bar = place(strength[0]), place(strength[1]), place(strength[2])
        wins = tuple(100 * float(ranking.wins[row, column]) for column in order)
        name = ranking.names[row]
        found.append(Line(name, subjects[name].href, float(ranking.mean_rank[row]), strength, bar, wins))
    return tuple(found)
