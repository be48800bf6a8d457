"""What Cityscapes' own evaluation of instances finds; the frameworks' evaluators keep only the means over classes."""

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cgh_bench.transfer_configs.contract import matches
from cgh_bench.transfer_configs.contract.matches import Judged

GROUP = 1000
"""Instances with a smaller id are groups, which nothing must find."""
Found = Mapping[str, Mapping[str, Mapping[str, list[dict[str, Any]]]]]
"""cityscapesScripts' matches: by file of ground truth, `prediction` or `groundTruth`, and class."""


@contextlib.contextmanager
def ap_by_class(module: ModuleType, work: Path) -> Iterator[dict[str, float]]:
    """The AP of each class in percent that `module.evaluateImgLists` computes in this block; none without objects.

    How each detection was judged is written to `matches.npz` in `work`.
    """
    found: dict[str, float] = {}
    tools = importlib.import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    evaluate, average = module.evaluateImgLists, tools.evaluateMatches

    def recording(*given: Any, **named: Any) -> Any:
        results = evaluate(*given, **named)
        classes = {name: 100 * float(aps["ap"]) for name, aps in results["averages"]["classes"].items()}
        found.update({name: ap for name, ap in classes.items() if math.isfinite(ap)})
        return results

    def keeping(given: Found, args: Any) -> Any:
        files = sorted(given)
        names = ["/".join(Path(file).parts[-2:]).removesuffix("_gtFine_instanceIds.png") for file in files]
        least, thresholds = args.minRegionSizes[0], list(args.overlaps)
        judged = {label: of_class([given[f] for f in files], label, least, thresholds) for label in args.instLabels}
        matches.write(work, names, judged)
        return average(given, args)

    module.evaluateImgLists = recording  # type: ignore[attr-defined]
    tools.evaluateMatches = keeping  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        module.evaluateImgLists = evaluate  # type: ignore[attr-defined]
        tools.evaluateMatches = average  # type: ignore[attr-defined]


def of_class(images: Sequence[Any], label: str, least: int, thresholds: Sequence[float]) -> Judged:
    """The detections of one class as Cityscapes' evaluation judges them.

    True instances do not overlap, so that above an IoU of one half a detection meets one at most. The surest of those
    that meet an instance finds it. One that meets none is left out where more of it than the threshold lies on pixels
    of no class, on groups, or on instances of fewer pixels than `least`.

    Args:
        images: the matches of each image.
        label: the class.
        least: the pixels of the smallest instance that is to be found.
        thresholds: T of them, each a half or more.
    """
    rows: list[tuple[int, float, list[bool], list[bool]]] = []
    objects = []
    for number, image in enumerate(images):
        objects.append(sum(_counts(each, least) for each in image["groundTruth"][label]))
        taken: set[tuple[int, int]] = set()
        for one in sorted(image["prediction"][label], key=lambda each: -float(each["confidence"])):
            rows.append((number, float(one["confidence"]), *_judge(one, least, thresholds, taken)))
    rows.sort(key=lambda row: -row[1])
    found, ignored = (np.array([row[part] for row in rows], bool).reshape(-1, len(thresholds)) for part in (2, 3))
    return Judged([row[0] for row in rows], [row[1] for row in rows], found, ignored, objects)


def _judge(
    one: Mapping[str, Any], least: int, thresholds: Sequence[float], taken: set[tuple[int, int]]
) -> tuple[list[bool], list[bool]]:
    """At each threshold whether a detection finds an instance that is not `taken` yet, and whether it is left out."""
    best = max(one["matchedGt"], key=lambda each: _iou(each, one), default=None)
    beside = (
        each["intersection"] * ((each["instID"] < GROUP) + (each["pixelCount"] < least)) for each in one["matchedGt"]
    )
    share = (one["voidIntersection"] + sum(beside)) / one["pixelCount"]
    found, ignored = [], []
    for column, threshold in enumerate(thresholds):
        if best is None or _iou(best, one) <= threshold:
            found.append(False)
            ignored.append(bool(share > threshold))
            continue
        place = best["instID"], column
        found.append(_counts(best, least) and place not in taken)
        ignored.append(not _counts(best, least))
        taken.add(place)
    return found, ignored


def _counts(instance: Mapping[str, Any], least: int) -> bool:
    return bool(instance["instID"] >= GROUP and instance["pixelCount"] >= least)


def _iou(instance: Mapping[str, Any], prediction: Mapping[str, Any]) -> float:
    both = instance["intersection"]
    return float(both / (instance["pixelCount"] + prediction["pixelCount"] - both))
