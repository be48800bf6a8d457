"""The arithmetic of a backbone, what a device is given ahead of time, and what it is asked for late."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_images import toy_data, toy_pair

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.ahead import ahead
from cgh_bench.core.device import arithmetic
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS
from cgh_bench.evaluation import Evaluation, evaluate, protocol_id
from cgh_bench.frozen.features import extract
from cgh_bench.tasks.base import FeatureTask
from cgh_bench.tasks.knn import KNN
from cgh_bench.workspace import Workspace

CPU = torch.device("cpu")


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_full_precision_has_no_tf32_and_leaves_things_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(ZeroDivisionError), arithmetic("fp32", CPU):
        assert flags() == (False, False) and not torch.is_autocast_enabled("cpu")
        with arithmetic("tf32", torch.device("cuda")):
            assert flags() == (True, True)
        with arithmetic("bf16", CPU):
            assert flags() == (False, False) and torch.is_autocast_enabled("cpu")
        raise ZeroDivisionError
    assert flags() == (False, True)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"), arithmetic("tf32", CPU):
        pass


def test_precision_is_part_of_the_protocol_the_cache_and_the_result(tmp_path: Path) -> None:
    backbone, (images, _) = random_checkpoint("resnet18"), toy_pair(8)
    full, half = (extract(backbone, images, AS_IS, "layer4", tmp_path, p) for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert full.fingerprint != half.fingerprint and half.features.dtype == np.float32
    difference = np.linalg.norm(full.features - half.features) / np.linalg.norm(full.features)
    assert 1e-4 < difference < 0.05

    seen: list[tuple[bool, bool]] = []

    class Noting(KNN):
        def run(self, *given: object) -> dict[str, float]:  # type: ignore[override]
            seen.append(flags())
            return {"top1": 0.0, "class_balanced": 0.0}

    task: FeatureTask = Noting(data="toy", transform=AS_IS)
    other = replace(task, precision="bf16")
    assert protocol_id("knn", task) == protocol_id("knn", replace(task, precision="fp32")) != protocol_id("knn", other)
    result = evaluate(Evaluation("knn", other, toy_data(), "p"), backbone, 0, Workspace(tmp_path))
    assert result.config["precision"] == "bf16" and seen == [(False, False)]


def test_what_is_made_ahead_comes_in_order_and_one_at_a_time() -> None:
    made = []

    def items():
        for number in range(4):
            made.append(number)
            if number == 3:
                raise UserError("no third")
            yield number

    taken = []
    with pytest.raises(UserError, match="no third"):
        for item in ahead(items()):
            taken.append(item)
            assert len(made) <= item + 2
    assert taken == [0, 1, 2] and list(ahead([])) == []
