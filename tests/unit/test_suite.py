"""Suites: what is there is evaluated once, what is not is named at the end, and a mean is of all or none."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import command
import numpy as np
import pytest

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.data.image_set import GreyImages
from cgh_bench.outcomes.classification import classification
from cgh_bench.report import definition, suite
from cgh_bench.report.suite import Filled, Value
from cgh_bench.suite import Runner
from cgh_bench.tasks.base import Folders, Metric, Task
from cgh_bench.workspace import Workspace

IMAGES = GreyImages("toy/val", ("a", "b"), np.repeat([0, 1], 20), "0" * 16, np.zeros((40, 8, 8), np.uint8))


class Nothing:
    fingerprint, subset = "0" * 16, ""


@dataclass(frozen=True)
class Toy(Task[Nothing]):
    METRICS: ClassVar = (Metric("top1"), Metric("loss", "nats", higher_is_better=False))
    data: str = "animals"
    right: int = 30
    absent: str = ""
    only: str = ""

    def load_data(self, cache: Path) -> Nothing:
        if self.absent:
            raise UserError(self.absent)
        return Nothing()

    def check_backbone(self, checkpoint: Checkpoint) -> None:
        if self.only and checkpoint.name != self.only:
            raise UserError(f"{checkpoint.name} is not {self.only}")

    def run(self, checkpoint: Checkpoint, data: Nothing, folders: Folders, seed: int) -> dict[str, float]:
        predicted = np.where(np.arange(40) < self.right, IMAGES.labels, 1 - IMAGES.labels)
        folders.keep(classification(IMAGES, predicted, measures={"top1": "top1"}))
        return {"top1": 100 * self.right / 40, "loss": 0.5}


SUITE = """
title = "Toys"
description = "For a test."

[[groups]]
name = "First"
mean = true
entries = [
    { header = "easy", task = "toy_easy", metric = "top1" },
    { header = "hard", task = "toy_hard", metric = "top1" },
]

[[groups]]
name = "Second"
entries = [
    { header = "loss", task = "toy_easy", metric = "loss" },
    { header = "absent", task = "toy_absent", metric = "top1" },
    { header = "picky", task = "toy_picky", metric = "top1" },
]
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tasks = {
        "toy_easy": Toy(),
        "toy_hard": Toy(right=20),
        "toy_absent": Toy(absent="fetch it"),
        "toy_picky": Toy(only="random:test_vit"),
    }
    for name, task in tasks.items():
        monkeypatch.setitem(registered("cgh_bench.tasks", "TASKS"), name, task)
    (tmp_path / "toys.toml").write_text(SUITE)
    return tmp_path


def filled(toys: Path) -> Filled:
    runner = Runner(suite.load(str(toys / "toys.toml")), Workspace(toys / "work"))
    for name in ("test_resnet", "test_vit"):
        runner.run(random_checkpoint(name), 1, lambda result, reused: None)
    return runner.filled


def test_a_table_of_everything_with_intervals_and_what_was_left_out(toys: Path) -> None:
    found = filled(toys)
    easy, hard, loss, _, picky = found.suite.entries
    value = found.values[easy, "random:test_resnet"]
    assert value.value == 75
    low, high = value.interval or (0, 0)
    assert 55 < low < 75 < high < 95
    assert found.values[loss, "random:test_resnet"] == Value(0.5)
    assert found.mean([easy, hard], "random:test_resnet") == Value(62.5)
    assert (picky, "random:test_resnet") not in found.values
    assert found.values[picky, "random:test_vit"].value == 75
    assert found.absent == {"toy_absent": "fetch it"}
    assert found.mean([easy, picky], "random:test_resnet") is None
    for form, draw in suite.FORMATS.items():
        text = draw(found)
        assert "62.5" in text or form == "csv"
        assert ("toy_absent: fetch it" in text) == (form != "csv")
    assert suite.csv_text(found).splitlines()[1].startswith("First,toy_easy,top1,random:test_resnet,75.0,")


def test_the_second_time_everything_is_reused(toys: Path) -> None:
    filled(toys)
    lines = (toys / "work/results.jsonl").read_text()
    assert filled(toys).values
    assert (toys / "work/results.jsonl").read_text() == lines


def test_the_command_names_what_is_absent_at_the_end_and_writes_nothing_in_a_dry_run(toys: Path) -> None:
    words = ("suite", "toys.toml", "--ckpt", "random:test_resnet", "--work", "work")
    planned = command.run(*words, "--dry-run", cwd=toys)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count("would run on random:test_resnet") == 2
    assert planned.stdout.splitlines()[-2:] == [
        "Left out: toy_absent: fetch it",
        "Left out: toy_picky of random:test_resnet: random:test_resnet is not random:test_vit",
    ]
    assert not (toys / "work").exists()
    done = command.run(*words, "--format", "md", cwd=toys)
    assert done.returncode == 0, done.stderr
    assert "| easy | 75.0 [" in done.stdout


@pytest.mark.parametrize("name", definition.names(suite.SUITES))
def test_every_suite_names_tasks_and_metrics_that_there_are(name: str) -> None:
    assert len(suite.load(name).entries) >= 3  # each is looked up by `load`


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"toy_easy", metric = "loss"', '"toy_easy", metric = "los"'), "los.*loss"),
        (('"toy_hard"', '"toy_herd"'), "toy_herd"),
        (("mean = true", "means = true"), "means"),
        (("[[groups]]", "[groups"), "not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_line(toys: Path, change: tuple[str, str], message: str) -> None:
    (toys / "toys.toml").write_text(SUITE.replace(*change))
    with pytest.raises(UserError, match=message):
        suite.load(str(toys / "toys.toml"))


def test_without_any_data_there_is_nothing_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    refused = command.run("suite", "transfer", "--ckpt", "random:test_resnet", cwd=tmp_path)
    assert refused.returncode == 2
    assert "food-101" in refused.stderr
