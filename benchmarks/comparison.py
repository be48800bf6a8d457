"""Do the intervals of `compare` cover what they claim, are its tests silent where nothing is, how long do they take?

    python benchmarks/comparison.py [--trials 2000]

Images are drawn from populations whose true difference is known. An interval at 95 % should cover it in 93 to 97 % of
the trials, and under no difference a test at 5 % should not be significant in more than 5 % of them. Standard errors of
the shares stand beside. Saves `results/comparison.json`.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cgh_bench.outcomes.base import named_images
from cgh_bench.outcomes.detection import Detection, Matches
from cgh_bench.outcomes.segmentation import Segmentation
from cgh_bench.report.resampling import percentiles, resampled, sign_flips, tail
from cgh_bench.report.significance import RESAMPLES, paired_interval, welch_half_widths

Trial = tuple[bool, bool]
"""Whether the interval covers the true difference, and whether the test is significant."""


def top1(images: int, gain: float, draw: np.random.Generator) -> Trial:
    """Two models of one run each, which differ on a fifth of the images."""
    shares = (0.1 + gain / 2, 0.1 - gain / 2, 0.8)
    deltas = draw.permutation(np.repeat([100.0, -100.0, 0.0], draw.multinomial(images, shares)))
    _, low, high = paired_interval(deltas)
    return low <= 100 * gain <= high, sign_flips(deltas) < 0.05


def three_runs(images: int, gain: float, draw: np.random.Generator) -> Trial:
    """The means of three runs each; images differ in how hard they are."""
    hard = draw.beta(2, 1, images) * (1 - gain)
    a, b = (draw.binomial(3, hard + more) / 3 for more in (gain, 0.0))
    _, low, high = paired_interval(100 * (a - b))
    return low <= 100 * gain <= high, sign_flips(100 * (a - b)) < 0.05


CLASSES = 6


def segmented(images: int, right: float, draw: np.random.Generator, base: np.ndarray) -> Segmentation:
    """Areas of `images`: each has two classes, of which a share that differs from image to image is found."""
    lines = []
    for image in range(images):
        for true in base[image]:
            pixels = int(draw.integers(200, 2000))
            hit = int(pixels * draw.beta(8 * right, 8 * (1 - right)))
            wrong = (true + 1 + int(draw.integers(0, CLASSES - 1))) % CLASSES
            lines += [(image, true, true, hit), (image, true, wrong, pixels - hit)]
    names = named_images("made", [str(n) for n in range(images)], "")
    classes = tuple("abcdef")
    return Segmentation(images=names, classes=classes, measures={"mIoU": "mIoU"}, pixels=np.array(lines))


def iou_truth(right: tuple[float, float]) -> float:
    """The difference of the population, by very many images."""
    draw = np.random.default_rng(99)
    base = np.array([draw.permutation(CLASSES)[:2] for _ in range(40_000)])
    return float(np.diff([segmented(40_000, r, draw, base).metrics()["mIoU"] for r in right[::-1]])[0])


def miou(images: int, right: tuple[float, float], truth: float, draw: np.random.Generator) -> Trial:
    """Two models on images of two classes each."""
    base = np.array([draw.permutation(CLASSES)[:2] for _ in range(images)])
    a, b = (segmented(images, r, draw, base) for r in right)
    drawn = resampled(images, lambda c: a.measure("mIoU", c) - b.measure("mIoU", c))
    low, high = percentiles(drawn)
    return low <= truth <= high, tail(drawn) < 0.05


def detected(images: int, right: float, draw: np.random.Generator) -> Detection:
    """Three objects and three detections an image, of two classes; found ones have higher scores."""
    image = np.repeat(np.arange(images), 3)
    label = np.tile([0, 0, 1], images)
    quality = draw.random(len(image)) < right
    found = quality[:, None] & (draw.random(len(image))[:, None] < np.linspace(1, 0.3, 10))
    score = draw.normal(quality * 1.0)
    order = np.lexsort((-score, label))
    objects = np.tile([2, 1], (images, 1))
    matches = Matches(image[order], label[order], score[order], found[order], np.zeros_like(found), objects)
    names = named_images("made", [str(n) for n in range(images)], "")
    return Detection(images=names, classes=("a", "b"), measures={"box_AP": "box_AP"}, kinds={"box": matches})


def ap_truth(right: tuple[float, float]) -> float:
    """The difference of the population, by very many images."""
    draw = np.random.default_rng(99)
    return float(np.diff([detected(100_000, r, draw).metrics()["box_AP"] for r in right[::-1]])[0])


def ap(images: int, right: tuple[float, float], truth: float, draw: np.random.Generator) -> Trial:
    """Two detectors."""
    a, b = (detected(images, r, draw) for r in right)
    drawn = resampled(images, lambda c: a.measure("box_AP", c) - b.measure("box_AP", c), draws=300)
    low, high = percentiles(drawn)
    return low <= truth <= high, tail(drawn) < 0.05


def seeds(runs: int, gain: float, draw: np.random.Generator) -> Trial:
    """Trainings of two methods, of unequal spread."""
    samples = [draw.normal(gain, 1, runs).tolist(), draw.normal(0, 1.5, runs).tolist()]
    half = welch_half_widths(samples)[0, 1]
    difference = np.mean(samples[0]) - np.mean(samples[1])
    return abs(difference - gain) <= half, abs(difference) > half


def trials(case: Callable[[np.random.Generator], Trial], count: int) -> Iterator[Trial]:
    """So many, each by its own seed."""
    for number in range(count):
        yield case(np.random.default_rng([2026, number]))


def shares(case: Callable[[np.random.Generator], Trial], count: int) -> dict[str, float]:
    """Shares of the trials in per cent, with the standard error of a share of 5 or 95 %."""
    covered, alarmed = np.mean(list(trials(case, count)), axis=0)
    error = 100 * np.sqrt(0.05 * 0.95 / count)
    return {"covered": 100 * covered, "significant": 100 * alarmed, "trials": count, "error": round(error, 2)}


def main() -> None:
    """Measure all and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2_000)
    count = parser.parse_args().trials
    found = {}
    for gain in (0.0, 0.03):
        for images in (100, 500, 2_000):
            found[f"top-1, {images} images, difference {100 * gain:g}"] = shares(
                lambda draw, n=images, g=gain: top1(n, g, draw), count
            )
        found[f"top-1 of three runs, 500 images, difference {100 * gain:g}"] = shares(
            lambda draw, g=gain: three_runs(500, g, draw), count
        )
    for right in ((0.7, 0.7), (0.7, 0.65)):
        truth = iou_truth(right) if right[0] != right[1] else 0.0
        found[f"mIoU, 200 images, difference {truth:.1f}"] = shares(
            lambda draw, r=right, t=truth: miou(200, r, t, draw), count // 4
        )
    for right in ((0.7, 0.7), (0.7, 0.6)):
        truth = ap_truth(right) if right[0] != right[1] else 0.0
        found[f"AP, 100 images, difference {truth:.1f}"] = shares(
            lambda draw, r=right, t=truth: ap(100, r, t, draw), count // 8
        )
    for runs in (3, 5):
        found[f"Welch, {runs} seeds, difference 0"] = shares(lambda draw, n=runs: seeds(n, 0.0, draw), count)
    deltas = np.random.default_rng(0).choice([100.0, -100.0, 0.0], 50_000, p=[0.12, 0.1, 0.78])
    started = time.perf_counter()
    paired_interval(deltas)
    sign_flips(deltas)
    seconds = time.perf_counter() - started
    report = {
        "shares": {name: {k: round(v, 2) for k, v in values.items()} for name, values in found.items()},
        "seconds": {f"50,000 images x {RESAMPLES:,} resamples, with the test": round(seconds, 4)},
        "machine": f"{platform.machine()}, numpy {np.__version__}",
    }
    text = json.dumps(report, indent=1)
    (Path(__file__).parent / "results" / "comparison.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
