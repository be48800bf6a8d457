"""Commands that compare: backbones on the same images, and a number with a published one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable, unknown

if TYPE_CHECKING:
    from cgh_bench.explain.axes import Variant
    from cgh_bench.explain.trial import Trial
    from cgh_bench.report.comparison import Comparison
    from cgh_bench.report.ranking import Ranking
    from cgh_bench.report.sensitivity import Sensitivity
    from cgh_bench.report.sides import Side

CLASSES_SHOWN = 5


@click.command(cls=options.Command)
@click.argument("backbones", metavar="A B…", nargs=-1, required=True)
@options.text("--task", metavar="TASK", help="Only this task.")
@click.option(
    "--points",
    type=click.FloatRange(0, min_open=True),
    default=1,
    metavar="D",
    help="Difference for the estimate of the number of images needed.",
)
@click.option(
    "--cost",
    metavar="COST",
    help="Also show the Pareto front against parameters, flops, speed or epochs.",
)
@click.option("--output", "-o", type=options.PATH, help="Folder for flips-TASK.csv and pictures of the images.")
@options.work
def compare(
    backbones: tuple[str, ...], task: str, points: float, cost: str | None, output: Path | None, work: Path
) -> None:
    """Compare backbones on the same images: which is better?

    A and B are recipes, checkpoint names or ids from `cgh-bench results list`. For every protocol that all were
    evaluated with, prints the difference, its interval and p-value over images, its interval over training runs, and
    the number of images that only one gets right. Three or more are also ranked.

    \b
    Examples:
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals --task animals_knn -o flips
      cgh-bench compare cgh_r18_animals moco_v2_r18_animals random:resnet18 --cost flops
    """
    from cgh_bench.cli.results import read_results
    from cgh_bench.report.comparison import EXPLANATION, pairs
    from cgh_bench.report.pareto import COSTS
    from cgh_bench.report.ranking import rank
    from cgh_bench.report.sides import sides

    if output and len(backbones) != 2:
        raise UserError(f"--output needs exactly two backbones, not {len(backbones)}")
    if cost is not None and cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    by_task = sides(read_results(work), work, backbones, task)
    found = pairs(by_task)
    for each in found:
        _show(each, points, len(found))
    if len(backbones) > 2:
        _show_ranking(rank(by_task), len(by_task))
    for row in by_task if cost else ():
        _show_pareto(row, str(cost))
    print(EXPLANATION)
    for row in by_task if output else ():
        _write(row, output or Path())


def _show(each: "Comparison", points: float, count: int) -> None:
    print(printable(each.sentence()))
    if each.p is not None:
        many = f", Holm over {count}" if count > 1 else ""
        needed = f"{each.images_needed(points):,} images needed to detect {points:g} point{'s' * (points != 1)}"
        print(f"  p = {each.p:.2g} ({each.test}{many}); {needed} (5 %, power 80 %)")
    if each.flips:
        first, second = (sum(column) for column in zip(*((a, b) for _, a, b in each.flips), strict=True))
        most = ", ".join(f"{name} {a}:{b}" for name, a, b in each.flips[:CLASSES_SHOWN])
        print(printable(f"  only {each.names[0]} correct: {first}, only {each.names[1]}: {second}; most in {most}"))


def _show_ranking(ranking: "Ranking", tasks: int) -> None:
    order = ranking.mean_rank.argsort(kind="stable")
    width = max(map(len, ranking.names))
    print(f"{'':{width}}  mean rank  strength (95 %)          % correct where the other is wrong")
    for row in order:
        rates = " ".join(f"{100 * ranking.wins[row, column]:4.0f}" if row != column else "   –" for column in order)
        span = f"{ranking.strength[row]:+.2f} ({ranking.low[row]:+.2f} to {ranking.high[row]:+.2f})"
        print(printable(f"{ranking.names[row]:{width}}  {ranking.mean_rank[row]:9.2f}  {span:22}  {rates}"))
    if ranking.critical is None:
        print("Only one task: no critical difference for mean ranks.")
    else:
        print(f"Mean ranks over {tasks} tasks: differences below {ranking.critical:.2f} are not significant.")


def _show_pareto(row: "Sequence[Side]", cost: str) -> None:
    from cgh_bench.report.pareto import COSTS, pareto
    from cgh_bench.report.sides import main_metric

    print(f"{row[0].runs[0].task} {main_metric(row[0])} against {COSTS[cost][0]} (* Pareto front):")
    for point in pareto(row, cost):
        print(printable(f"  {'*' if point.best else ' '} {point.cost:9.4g}  {point.value:6.2f}  {point.name}"))


def _write(row: "Sequence[Side]", output: Path) -> None:
    from cgh_bench.report.flips import write_flips

    for path in write_flips(row[0], row[1], output):
        print(f"written: {path}")


@click.command(cls=options.Command)
@click.argument("task", metavar="TASK")
@click.argument("backbones", metavar="A B…", nargs=-1, required=True)
@options.dry_run
@options.work
def sensitivity(task: str, backbones: tuple[str, ...], dry_run: bool, work: Path) -> None:
    """Find out whether the ranking of backbones depends on the protocol.

    A and B are recipes, checkpoint names or ids with results of TASK: kNN, linear, logistic or another task on one
    frozen feature. Resize and crop, interpolation, feature, k, temperature and so on are varied one at a time. The runs
    are stored; tables and the site mark columns whose ranking is not stable.

    \b
    Examples:
      cgh-bench sensitivity animals_knn cgh_r18_animals moco_v2_r18_animals --dry-run
      cgh-bench sensitivity animals_knn cgh_r18_animals moco_v2_r18_animals
    """
    from cgh_bench import results, tasks
    from cgh_bench.core.progress import showing
    from cgh_bench.explain.study import study
    from cgh_bench.report.sensitivity import sensitivity as measured
    from cgh_bench.report.sides import sides
    from cgh_bench.workspace import Workspace

    workspace = Workspace(work)
    (row,) = sides(results.read(workspace.store)[0], work, backbones, task)
    studies = [study(side.runs[0], workspace) for side in row]
    values = [{variant.value: variant for variant in each.legal()} for each in studies]
    shared = [value for value in values[0] if all(value in others for others in values)]
    if dry_run:
        print(f"{len(shared)} variants of {row[0].runs[0].protocol}: {', '.join(shared)}")
        return
    with showing(True):
        for value in shared:
            for each, variants in zip(studies, values, strict=True):
                each.measured(variants[value])
    metric = tasks.find(task).METRICS[0]
    found = measured(results.read(workspace.store)[0], row[0].runs[0].protocol, metric)
    if found is None:
        raise UserError(f"{task} has no variant that works for all of {', '.join(backbones)}")
    _show_sensitivity(found, metric.name)


def _show_sensitivity(found: "Sensitivity", metric: str) -> None:
    width = max(map(len, found.names))
    print(f"{'':{width}}  rank  ranks      {metric:>7}  values")
    for place in found.ranks[0].argsort(kind="stable"):
        ranks, values = found.ranks[:, place], found.values[:, place]
        spread = f"{ranks.min():g} to {ranks.max():g}"
        line = f"{found.names[place]:{width}}  {ranks[0]:4g}  {spread:9}  {values[0]:7.2f}"
        print(printable(f"{line}  {values.min():.2f} to {values.max():.2f}"))
    print(printable(found.sentence()))


@click.command(cls=options.Command)
@click.argument("number", type=options.COUNT)
@click.option("--published", required=True, metavar="VALUE|ROW", help="Per cent, or the start of a published row.")
@options.text("--metric", help="Metric to explain.  [default: the task's main metric]")
@options.text("--ckpt", metavar="CKPT", help="The checkpoint, if it was moved.")
@options.dry_run
@options.work
def explain(number: int, published: str, metric: str, ckpt: str, dry_run: bool, work: Path) -> None:
    """Find out why a result differs from a published one.

    NUMBER is a result's number in `cgh-bench results list`, for kNN, linear, logistic or another task on one frozen
    feature. ROW is PROTOCOL,METHOD[,DETAIL[,EPOCHS]], the start of a line of published/results.csv. One setting is
    varied at a time (resize and crop, interpolation, feature, k, temperature, preprocessing, …); if none closes the
    difference, the most promising pairs follow. The runs are stored, but appear in no table.

    \b
    Examples:
      cgh-bench explain 17 --published 67.5 --dry-run
      cgh-bench explain 17 --published 67.5
      cgh-bench explain 17 --published "imagenet_nn20,SwAV,,800"
    """
    from cgh_bench.cli.results import one
    from cgh_bench.core.progress import showing
    from cgh_bench.explain.study import study
    from cgh_bench.explain.target import target
    from cgh_bench.explain.trial import verdict
    from cgh_bench.workspace import Workspace

    found = study(one(number, work), Workspace(work), metric, ckpt)
    goal = target(published, found.metric)
    now = found.result.metrics[found.metric]
    before = goal.value - now
    print(printable(f"{found.result!r}"))
    print(f"published {goal.value:.{goal.digits}f}, here {now:.2f}: {before:+.2f} points of {found.metric} to explain")
    if dry_run:
        for line in found.plan():
            print(printable(line))
        return
    if abs(before) <= 0.5 * 10**-goal.digits:
        print("Nothing to explain: the numbers agree to the last published digit.")
        return
    print(f"{'axis':17} {'value':61} {'number':>6} {'remains':>7} (95 % over images)")
    trials: list[Trial] = []

    def run(variants: "Sequence[Variant]") -> None:
        for variant in variants:
            trials.append(found.run(variant, goal))
            print(_line(trials[-1]), flush=True)

    with showing(True):
        run(found.variants())
        if not any(trial.closes for trial in trials):
            run(found.pairs(trials, goal))
    print(printable(verdict(trials, before, found.metric)))
    print("closes: the remainder is at most half the last digit, or under half the difference with 0 in its interval.")


def _line(trial: "Trial") -> str:
    interval = "({:+.2f} to {:+.2f})".format(*trial.interval) if trial.interval else ""
    mark = " closes" * trial.closes
    text = (
        f"{trial.variant.axis:17} {trial.variant.value:61} {trial.number:6.2f} {trial.remains:+7.2f} {interval}{mark}"
    )
    return printable(text).rstrip()
