"""Which of two or more backbones is better on the same images, by how much, and how sure that is.

Two questions, kept apart. Would other images of the same kind have said the same of these weights? The differences of
each image answer it: intervals by resampling images (of AP and mIoU: images, with all that is in them), p-values exact
where images are right or wrong. Would other trainings have said the same? Only several trainings answer it: Welch's
interval over seeds.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench import outcomes, results, tasks
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import replacing, write_text
from cgh_bench.data import ImageSet, data_root, load_pair
from cgh_bench.outcomes import Outcomes
from cgh_bench.outcomes.classification import Classification
from cgh_bench.report.significance import CONFIDENCE, RESAMPLES, paired_interval, welch_half_widths
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

LEAST_IMAGES = 30
"""With fewer, no interval or p-value is given: their coverage is not what they claim."""
DRAWS = 1_000
"""Resamples of images for numbers that are no mean over images."""
CELLS_PER_PASS = 20_000_000
POWER = 0.8
TILE, ON_A_SHEET = 96, 40
"""Pixels of a picture on a sheet of flips, and how many there are at most."""
EXPLANATION = (
    "Paired: the same images, these weights; the interval says what other images of the same kind might have changed. "
    "Over seeds: Welch's interval over trainings says what another training might have changed. A claim about a method "
    "needs the second, a claim about two files of weights the first."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """What one metric of one task says of two backbones; differences are the first minus the second, in its unit."""

    task: str
    metric: str
    names: tuple[str, str]
    values: tuple[float, float]
    """The mean over the runs of each."""
    interval: tuple[float, float] | None
    """The interval of the difference, over images; None for too few."""
    p: float | None
    """That of no difference, over images, two-sided; corrected for the number of tasks by `holm`."""
    test: str
    """How `p` was found."""
    images: int
    spread: float
    """The standard deviation of the difference of one image."""
    seeds: tuple[int, int]
    """How many trainings there are of each."""
    over_seeds: tuple[float, float] | None
    """Welch's interval of the difference over trainings; None if either has one."""
    higher_is_better: bool
    flips: tuple[tuple[str, int, int], ...]
    """For each class: how many images only the first has right, and only the second. For one run each."""

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.values[0] - self.values[1]

    def images_needed(self, difference: float) -> int:
        """Images that show a true `difference` at 5 % with a power of 80 %, by the spread measured here."""
        from scipy.special import ndtri

        errors = float(ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER))
        return math.ceil((errors * self.spread / difference) ** 2)

    def sentence(self) -> str:
        """`CGH is better than MoCo v2 in animals_knn top1 by 5.8 points (95 % 3.9 to 7.7, paired, 2,000 images; …)`."""
        better, worse = self.names if (self.difference >= 0) == self.higher_is_better else self.names[::-1]
        interval, seeds = (self._turned(side) for side in (self.interval, self.over_seeds))
        difference = abs(self.difference)
        where = f"in {self.task} {self.metric}"
        trainings = "one training each" if self.seeds == (1, 1) else f"{self.seeds[0]} and {self.seeds[1]} trainings"
        over = f"over {min(self.seeds)} seeds {_span(seeds)}" if seeds else trainings
        if interval is None:
            return (
                f"{better} has {difference:.1f} points more than {worse} {where} on {self.images} images: too few for "
                f"an interval ({LEAST_IMAGES} needed); {over}"
            )
        what = f"({100 * CONFIDENCE:g} % {_span(interval)}, paired, {self.images:,} images; {over})"
        if interval[0] <= 0 <= interval[1]:
            return f"{better} and {worse} cannot be told apart {where}: {difference:.1f} points {what}"
        return f"{better} is better than {worse} {where} by {difference:.1f} points {what}"

    def _turned(self, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        """The interval of the difference's size: better minus worse."""
        return interval if interval is None or self.difference >= 0 else (-interval[1], -interval[0])

    def __repr__(self) -> str:
        return self.sentence()


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


@dataclass(frozen=True)
class Side:
    """The runs of one backbone in one protocol, with what they answered."""

    name: str
    runs: tuple[Result, ...]
    kept: tuple[Outcomes, ...]

    def each(self, metric: str) -> Floats | None:
        """The mean over the runs of the metric of each image, where it is a mean over images."""
        values = [outcome.each(metric) for outcome in self.kept]
        if any(value is None for value in values):
            return None
        means: Floats = np.mean(np.array(values, np.float64), axis=0)
        return means

    def measure(self, metric: str, counts: NDArray[np.int64]) -> Floats:
        """The mean over the runs of the metric, of resampled images."""
        means: Floats = np.mean([outcome.measure(metric, counts) for outcome in self.kept], axis=0)
        return means

    def trainings(self, metric: str) -> list[float]:
        """The metric of each training, the mean over its evaluations."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            found.setdefault(run.checkpoint, []).append(run.metrics[metric])
        return [float(np.mean(values)) for values in found.values()]


def compare(*names: str, task: str = "", work: str | Path = "work") -> list[Comparison]:
    """Compare backbones that were evaluated, every two of them in every task that all have results of.

    Args:
        names: of recipes, of checkpoints, or checkpoint ids; two or more.
        task: only this one.
        work: the folder with results.jsonl.

    Raises:
        UserError: a name has no results, no protocol is shared, runs kept no answers or answered for other images.
    """
    workspace = Workspace(Path(work))
    return pairs(sides(results.read(workspace.store)[0], workspace.root, names, task))


def compared(first: Side, second: Side, metric: str) -> Comparison:
    """Compare two backbones on the images that both answered for.

    Raises:
        UserError: they answered for different images; the message names one.
    """
    require_same_images(first, second)
    images = len(first.kept[0].images)
    a, b = first.each(metric), second.each(metric)
    interval: tuple[float, float] | None = None
    p: float | None = None
    if a is not None and b is not None:
        deltas = a - b
        test, spread = "exact McNemar" if set(np.unique(deltas)) <= {-100, 0, 100} else "sign flips", deltas.std()
        if images >= LEAST_IMAGES:
            _, *sides = paired_interval(deltas)
            interval, p = (sides[0], sides[1]), sign_flips(deltas)
    else:
        drawn = resampled(images, lambda counts: first.measure(metric, counts) - second.measure(metric, counts))
        test, spread = "bootstrap of images", drawn.std() * math.sqrt(images)
        if images >= LEAST_IMAGES:
            interval, p = percentiles(drawn), tail(drawn)
    trainings = [side.trainings(metric) for side in (first, second)]
    means = [float(np.mean(values)) for values in trainings]
    half = float(welch_half_widths(trainings)[0, 1])
    difference = means[0] - means[1]
    return Comparison(
        task=first.runs[0].task,
        metric=metric,
        names=(first.name, second.name),
        values=(means[0], means[1]),
        interval=interval,
        p=p,
        test=test,
        images=images,
        spread=float(spread),
        seeds=(len(trainings[0]), len(trainings[1])),
        over_seeds=None if math.isnan(half) else (difference - half, difference + half),
        higher_is_better=_higher_is_better(first, metric),
        flips=flips(first, second),
    )


def require_same_images(first: Side, second: Side) -> None:
    """Refuse runs on different images, and say which differ."""
    one, *others = [*first.kept, *second.kept]
    for other in others:
        if other.images.order == one.images.order:
            continue
        what = f"{first.name} and {second.name} answered for different images in {first.runs[0].task}"
        pairs = zip(one.images.ids, other.images.ids, strict=False)
        place = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        if len(one.images) != len(other.images):
            odd = sorted(set(one.images.ids) ^ set(other.images.ids))
            told = f"{len(one.images)} and {len(other.images)}; only in one: {', '.join(odd[:3])}"
        elif place is not None:
            told = f"number {place} is {one.images.ids[place]} and {other.images.ids[place]}"
        else:
            told = "the names are the same, but not the content"
        raise UserError(f"{what} ({told}); evaluate both on the same data")


def sign_flips(deltas: Floats) -> float:
    """The two-sided p-value of no difference: by chance each image's difference (N,) could as well be the other way.

    Where all that differ do so by the same amount this is McNemar's exact test, and is computed exactly; otherwise by
    10,000 draws, the same on every call.

    Sources: Q. McNemar, Psychometrika 12 (1947); R. A. Fisher, The Design of Experiments (1935), section 21.
    """
    from scipy.special import bdtr

    sizes, counts = np.unique(np.abs(deltas[deltas != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    if len(sizes) == 1:
        few = min((deltas > 0).sum(), (deltas < 0).sum())
        return float(min(1.0, 2 * bdtr(few, counts[0], 0.5)))
    ups = np.random.default_rng(0).binomial(counts, 0.5, (RESAMPLES, len(sizes)))
    sums = np.abs((2 * ups - counts) @ sizes)
    return float((1 + (sums >= abs(deltas.sum()) - 1e-9).sum()) / (1 + RESAMPLES))


def resampled(images: int, statistic: Callable[[NDArray[np.int64]], Floats], draws: int = DRAWS) -> Floats:
    """A `statistic` of how often each of so many images occurs (B, N) -> (B,), for `draws` resamples of the images."""
    draw, at_once = np.random.default_rng(0), max(1, CELLS_PER_PASS // images)
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    even = np.full(images, 1 / images)
    return np.concatenate([statistic(draw.multinomial(images, even, count)) for count in parts])


def interval(kept: Outcomes, metric: str) -> tuple[float, float] | None:
    """The `CONFIDENCE` interval of a metric over images; None where the answers do not give it, or too few images."""
    if metric not in kept.measures or len(kept.images) < LEAST_IMAGES:
        return None
    each = kept.each(metric)
    if each is not None:
        _, low, high = paired_interval(each)
        return low, high
    return percentiles(resampled(len(kept.images), lambda counts: kept.measure(metric, counts)))


def percentiles(drawn: Floats) -> tuple[float, float]:
    """The `CONFIDENCE` interval of resampled differences."""
    share = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [share, 100 - share])
    return float(low), float(high)


def tail(drawn: Floats) -> float:
    """The two-sided p-value of no difference by resampled differences."""
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(drawn))))


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values corrected for their number, so that the chance of any false alarm is 5 %.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    places = sorted(
        (n for n, each in enumerate(comparisons) if each.p is not None), key=lambda n: comparisons[n].p or 0.0
    )
    corrected, worst = list(comparisons), 0.0
    for rank, place in enumerate(places):
        worst = max(worst, min(1.0, (len(places) - rank) * (comparisons[place].p or 0.0)))
        corrected[place] = replace(comparisons[place], p=worst)
    return corrected


def flips(first: Side, second: Side) -> tuple[tuple[str, int, int], ...]:
    """For each class: images that only the first has right, and only the second; most flips first."""
    masks = flipped(first, second)
    if masks is None:
        return ()
    kept = first.kept[0]
    assert isinstance(kept, Classification)
    counts = [np.bincount(kept.target[mask], minlength=len(kept.classes)) for mask in masks]
    lines = [(name, int(a), int(b)) for name, a, b in zip(kept.classes, *counts, strict=True) if a or b]
    return tuple(sorted(lines, key=lambda line: -line[1] - line[2]))


def flipped(first: Side, second: Side) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which images (N,) only the first has right, and only the second, by the first run of each; None for others."""
    one, other = first.kept[0], second.kept[0]
    if not (isinstance(one, Classification) and isinstance(other, Classification)):
        return None
    a, b = (kept.rank[:, 0] < 1 for kept in (one, other))
    return a & ~b, b & ~a


def sides(records: Sequence[Result], root: Path, names: Sequence[str], task: str = "") -> list[list[Side]]:
    """For each protocol that all of `names` have results of, the runs of each of them.

    Args:
        records: all results, the oldest first.
        root: the folder of the results.
        names: of recipes, of checkpoints, or checkpoint ids; two or more.
        task: only this one.

    Raises:
        UserError: a name has no results, there is no protocol in common, or runs kept no answers.
    """
    if len(set(names)) < 2:
        raise UserError("compare needs two different backbones: recipes, checkpoint names or ids of `results list`")
    mine = [_results_of(records, name) for name in names]
    shared = {(r.protocol, r.data) for r in mine[0]}
    for found in mine[1:]:
        shared &= {(r.protocol, r.data) for r in found}
    wanted = [key for key in dict.fromkeys((r.protocol, r.data) for r in mine[0]) if key in shared]
    wanted = [key for key in wanted if task in ("", key[0].partition("@")[0])]
    if not wanted:
        had = [sorted({r.protocol for r in found}) for found in mine]
        listed = "; ".join(f"{name}: {', '.join(known)}" for name, known in zip(names, had, strict=True))
        of = f" of task {task}" if task else ""
        raise UserError(f"no protocol{of} that all have results of on the same data ({listed})")
    return [[_side(name, key, found, root) for name, found in zip(names, mine, strict=True)] for key in wanted]


def _results_of(records: Sequence[Result], name: str) -> list[Result]:
    own = [r for r in records if not r.imported]
    for of in (
        lambda r: str(r.origin.get("recipe", "")),
        lambda r: r.checkpoint_name,
        lambda r: r.checkpoint,
    ):
        if found := [r for r in own if of(r) == name]:
            return found
    raise unknown("backbone", name, {str(r.origin.get("recipe") or r.checkpoint_name) for r in own})


def _side(name: str, key: tuple[str, str], found: Sequence[Result], root: Path) -> Side:
    latest = {(r.checkpoint, r.seed): r for r in found if (r.protocol, r.data) == key}
    runs = tuple(sorted(latest.values(), key=lambda r: (str(r.origin.get("seed", "")), r.seed)))
    return Side(name, runs, tuple(outcomes.of_run(run, root) for run in runs))


def _higher_is_better(side: Side, metric: str) -> bool:
    return all(
        known.higher_is_better is not False for known in tasks.find(side.runs[0].task).METRICS if known.name == metric
    )


def main_metric(side: Side) -> str:
    """The first metric of the task that its answers determine."""
    known = [metric.name for metric in tasks.find(side.runs[0].task).METRICS]
    metric = next((name for name in known if all(name in kept.measures for kept in side.kept)), None)
    if metric is None:
        raise UserError(f"the answers of {side.runs[0].task} determine none of {', '.join(known)}")
    return metric


def pairs(by_task: Sequence[Sequence[Side]]) -> list[Comparison]:
    """Every two backbones in every task, p-values corrected for all of them."""
    return holm([compared(*two, main_metric(two[0])) for row in by_task for two in combinations(row, 2)])


@dataclass(frozen=True)
class Ranking:
    """Several backbones over all tasks together."""

    names: tuple[str, ...]
    mean_rank: Floats
    """(M,) 1 is best."""
    critical: float | None
    """Mean ranks that differ by less cannot be told apart (Nemenyi, 5 %); None for a single task."""
    wins: Floats
    """(M, M): the share that the row has right of the images that one of the two has right; NaN for none."""
    strength: Floats
    """(M,) log odds of winning such an image, zero on average (Bradley and Terry)."""
    low: Floats
    high: Floats
    """(M,) each: the interval of `strength`, over images."""


def rank(by_task: Sequence[Sequence[Side]]) -> Ranking:
    """Rank several backbones: over tasks by ranks, over images by who is right where the other is wrong.

    Sources: J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006);
    R. A. Bradley and M. E. Terry, Biometrika 39 (1952); D. R. Hunter, Annals of Statistics 32 (2004).
    """
    names = tuple(side.name for side in by_task[0])
    ranks, patterns = [], []
    for row in by_task:
        metric = main_metric(row[0])
        for other in row[1:]:
            require_same_images(row[0], other)
        values = np.array([np.mean(side.trainings(metric)) for side in row])
        ranks.append(_average_ranks(-values if _higher_is_better(row[0], metric) else values))
        firsts = [side.kept[0] for side in row]
        if hits := [kept.rank[:, 0] < 1 for kept in firsts if isinstance(kept, Classification)]:
            patterns.append(np.array(hits))
    wins = np.zeros((1, len(names), len(names)))
    drawn = np.zeros((DRAWS, len(names), len(names)))
    for right in patterns:
        kinds, counts = np.unique(right, axis=1, return_counts=True)
        beats = kinds[:, None] & ~kinds[None]  # (M, M, kinds): who is right where the other is wrong
        wins += np.einsum("ijk,k->ij", beats, counts)[None]
        total = counts.sum()
        resamples = np.random.default_rng(0).multinomial(total, counts / total, DRAWS)
        drawn += np.einsum("ijk,bk->bij", beats, resamples)
    (strength,), spread = bradley_terry(wins), bradley_terry(drawn)
    share = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(spread, [share, 100 - share], axis=0)
    both = wins[0] + wins[0].T
    rates = np.divide(wins[0], both, out=np.full_like(both, np.nan), where=both > 0)
    return Ranking(names, np.mean(ranks, axis=0), _critical(len(names), len(by_task)), rates, strength, low, high)


def _average_ranks(values: Floats) -> Floats:
    """1 for the smallest; equal values share the mean of their ranks."""
    below = (values[:, None] > values).sum(axis=1)
    equal = (values[:, None] == values).sum(axis=1)
    ranks: Floats = below + (equal + 1) / 2
    return ranks


def _critical(models: int, count: int) -> float | None:
    if count < 2:
        return None
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(CONFIDENCE, models, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(models * (models + 1) / (6 * count)))


def bradley_terry(wins: Floats, steps: int = 200) -> Floats:
    """Log strengths (B, M), of mean zero, from wins (B, M, M) of row over column, by Hunter's MM steps.

    Half a win is added both ways, so that who never wins has a finite strength.
    """
    models = wins.shape[1]
    wins = wins + 0.5 * (1 - np.eye(models))
    games, won = wins + wins.transpose(0, 2, 1), wins.sum(axis=2)
    strength = np.ones(wins.shape[:2])
    for _ in range(steps):
        strength = won / (games / (strength[:, :, None] + strength[:, None])).sum(axis=2)
        strength /= np.exp(np.log(strength).mean(axis=1, keepdims=True))
    return np.log(strength)


def write_flips(first: Side, second: Side, folder: Path) -> list[Path]:
    """The images that only one has right: all as `flips-TASK.csv`, the first of each side as pictures.

    Returns what was written; there are no pictures of a dataset that is not there any more.

    Raises:
        UserError: the task gives no single class to each image.
    """
    masks = flipped(first, second)
    if masks is None:
        raise UserError(f"{first.runs[0].task} does not classify images: there are no flips to write")
    one, other = first.kept[0], second.kept[0]
    assert isinstance(one, Classification) and isinstance(other, Classification)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "image", "target", first.name, second.name])
    for index in np.flatnonzero(masks[0] | masks[1]):
        given = [kept.classes[kept.predicted[index, 0]] for kept in (one, other)]
        writer.writerow([first.runs[0].task, one.images.ids[index], one.classes[one.target[index]], *given])
    task, config = first.runs[0].task, first.runs[0].config
    table = folder / f"flips-{task}.csv"
    write_text(table, out.getvalue())
    try:
        pair = load_pair(str(config["data"]), data_root(), None, float(config.get("val_split", 0.0)))
    except UserError:
        return [table]
    written = [table]
    for images in (part for part in (pair.train, pair.val) if part.order == one.images.order):
        for name, mask in zip(("first", "second"), masks, strict=True):
            if mask.any():
                written.append(folder / f"only-the-{name}-{task}.png")
                write_sheet(images, np.flatnonzero(mask)[:ON_A_SHEET], written[-1])
    return written


def write_sheet(images: ImageSet, rows: NDArray[np.int64], path: Path) -> None:
    """Some of the images side by side, as a PNG."""
    from PIL import Image

    columns = min(len(rows), 8)
    sheet = Image.new("RGB", (columns * TILE, math.ceil(len(rows) / columns) * TILE), "white")
    for place, row in enumerate(rows.tolist()):
        picture = Image.fromarray(images.image(row).permute(1, 2, 0).numpy())
        picture = picture.resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (place % columns * TILE, place // columns * TILE))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
