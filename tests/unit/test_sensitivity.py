"""Whether the order of backbones depends on the protocol."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from reporting import result, use_fake_tasks, write_definition

from cgh_bench.report import table
from cgh_bench.report.sensitivity import sensitivity
from cgh_bench.results import Result
from cgh_bench.tasks.base import Metric


def variant(recipe: str, value: float, *settings: str) -> Result:
    protocol = f"knn@{abs(hash(settings)):x}"
    return result(recipe, value, protocol=protocol, overridden=settings)


def test_ranks_under_variants_and_which_swap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_fake_tasks(monkeypatch)
    base = [result("a", 60.0), result("a", 62.0, pretraining=1), result("b", 58.0), result("c", 10.0)]
    records = [
        *base,
        *(variant("a", 50.0, "k=1"), variant("b", 55.0, "k=1")),
        *(variant("a", 59.0, "k=5"), variant("b", 54.0, "k=5")),
        *(variant("a", 1.0, "channel_order=BGR"), variant("b", 2.0, "channel_order=BGR")),  # not of the protocol
        dataclasses.replace(variant("a", 1.0, "k=9"), data="other"),
        variant("b", 2.0, "k=9"),
    ]
    found = sensitivity(records, base[0].protocol, Metric("top1"))
    assert found and (found.names, found.variants) == (("a", "b"), ("", "k=1", "k=5"))
    assert found.values.tolist() == [[61.0, 58.0], [50.0, 55.0], [59.0, 54.0]]
    assert found.ranks.tolist() == [[1, 2], [2, 1], [1, 2]]
    assert found.swaps == [("a", "b", ["k=1"])]
    assert found.sentence() == "ranking not stable under the 2 variants tried: a and b swap in 1 (k=1)"
    lower = sensitivity(records, base[0].protocol, Metric("top1", higher_is_better=False))
    assert lower and np.array_equal(lower.ranks, 3 - found.ranks)
    (said,) = [note for note in table.build(write_definition(tmp_path), records).notes if "ranking" in note]
    assert said == f"kNN: {found.sentence()}."
    stable = sensitivity([*base, *records[6:8]], base[0].protocol, Metric("top1"))
    assert stable and stable.sentence() == "ranking of a, b stable under the 1 variant tried"
    assert sensitivity(base, base[0].protocol, Metric("top1")) is None
