"""The command that compares backbones on the same images."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable

if TYPE_CHECKING:
    from cgh_bench.report.comparison import Comparison, Ranking, Side

CLASSES_SHOWN = 5


@click.command(cls=options.Command)
@click.argument("backbones", metavar="A B…", nargs=-1, required=True)
@options.text("--task", metavar="TASK", help="Only this task.")
@click.option(
    "--points", type=click.FloatRange(0, min_open=True), default=1, metavar="D", help="Images to show D points."
)
@click.option("--output", "-o", type=options.PATH, help="Folder for flips-TASK.csv and pictures of the images.")
@options.work
def compare(backbones: tuple[str, ...], task: str, points: float, output: Path | None, work: Path) -> None:
    """Compare backbones on the same images: which is better?

    A and B are recipes, checkpoint names or ids from `cgh-bench results list`. In every protocol that all were
    evaluated under: the difference, its interval and p-value over images, its interval over trainings, and the images
    that only one has right. Three or more are also ranked.

    \b
    Examples:
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals --task animals_knn -o flips
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals random:resnet18
    """
    from cgh_bench import results
    from cgh_bench.report import comparison
    from cgh_bench.workspace import Workspace

    if output and len(backbones) != 2:
        raise UserError(f"--output shows two backbones side by side, not {len(backbones)}")
    records, complaints = results.read(Workspace(work).store)
    for complaint in complaints:
        print(printable(complaint), file=sys.stderr)
    by_task = comparison.sides(records, work, backbones, task)
    found = comparison.pairs(by_task)
    for each in found:
        _show(each, points, len(found))
    if len(backbones) > 2:
        _show_ranking(comparison.rank(by_task), len(by_task))
    print(comparison.EXPLANATION)
    for row in by_task if output else ():
        _write(row, output or Path())


def _show(each: "Comparison", points: float, count: int) -> None:
    print(printable(each.sentence()))
    if each.p is not None:
        many = f", Holm over {count}" if count > 1 else ""
        needed = f"{each.images_needed(points):,} images show {points:g} point{'s' * (points != 1)}"
        print(f"  p = {each.p:.2g} ({each.test}{many}); {needed} (5 %, power 80 %)")
    if each.flips:
        first, second = (sum(column) for column in zip(*((a, b) for _, a, b in each.flips), strict=True))
        most = ", ".join(f"{name} {a}:{b}" for name, a, b in each.flips[:CLASSES_SHOWN])
        print(printable(f"  only {each.names[0]} right: {first}, only {each.names[1]}: {second}; most in {most}"))


def _show_ranking(ranking: "Ranking", tasks: int) -> None:
    order = ranking.mean_rank.argsort(kind="stable")
    width = max(map(len, ranking.names))
    print(f"{'':{width}}  mean rank  strength (95 %)          right where the other is wrong")
    for row in order:
        rates = " ".join(f"{100 * ranking.wins[row, column]:4.0f}" if row != column else "   –" for column in order)
        span = f"{ranking.strength[row]:+.2f} ({ranking.low[row]:+.2f} to {ranking.high[row]:+.2f})"
        print(printable(f"{ranking.names[row]:{width}}  {ranking.mean_rank[row]:9.2f}  {span:22}  {rates}"))
    if ranking.critical is None:
        print("One task: mean ranks have no critical difference.")
    else:
        print(f"Mean ranks over {tasks} tasks that differ by less than {ranking.critical:.2f} are not told apart.")


def _write(row: "Sequence[Side]", output: Path) -> None:
    from cgh_bench.report.comparison import write_flips

    for path in write_flips(row[0], row[1], output):
        print(f"written: {path}")
