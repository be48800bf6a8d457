"""What the charts are made of: plotly accepts them, logs are averaged, broken lines noted, names taken literally."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from reporting import result, use_fake_tasks, write_definition

from cgh_bench import published
from cgh_bench.report import table
from cgh_bench.report.cells import Table
from cgh_bench.site import charts
from cgh_bench.site.charts import MEASURED, Point
from cgh_bench.tasks.base import Metric


def write_log(work: Path, recipe: str, seed: int, lines: list[object]) -> Path:
    folder = work / "pretrain" / recipe / f"seed{seed}"
    folder.mkdir(parents=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "log.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder


def line(step: int, **terms: float) -> dict[str, float]:
    total = {"step": step, "epoch": step / 10, "loss": sum(terms.values())}
    return {**total, **terms, "lr": 0.1, "images_per_second": 100.0, "seconds": step / 2}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    use_fake_tasks(monkeypatch)
    return table.build(write_definition(tmp_path), [result("a", 60.0), result("a", 62.0, pretraining=1)])


def test_a_log_is_averaged_by_equal_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "POINTS", 2)
    folder = write_log(tmp_path, "a", 0, [line(step, x=step, y=1) for step in (1, 2, 3, 4, 5)])
    notes: list[str] = []
    log = charts.read_log(folder, notes)
    assert log is not None
    assert log.epoch == [0.3, 0.5]
    assert log.losses == {"loss": [3.0, 5.5], "x": [2.0, 4.5], "y": [1.0, 1.0]}
    assert (log.seed, notes) == ("0", [])


def test_broken_lines_are_counted_and_the_rest_drawn(tmp_path: Path) -> None:
    folder = write_log(tmp_path, "a", 0, [line(1, x=1), '{"step": 2, "epo', "[3]", '{"note": "resumed"}', line(4, x=4)])
    notes: list[str] = []
    log = charts.read_log(folder, notes)
    assert log is not None
    assert log.losses["loss"] == [1.0, 4.0]
    assert len(notes) == 1
    assert notes[0].startswith("2 lines of a/seed0/log.jsonl")


def test_no_log_is_no_chart(tmp_path: Path, small: Table) -> None:
    write_log(tmp_path, "b", 0, ["nothing"])
    notes: list[str] = []
    assert charts.loss_charts(small, tmp_path, notes) == []
    assert len(notes) == 1


def test_a_chart_has_the_total_of_each_seed_and_the_terms_of_the_first(tmp_path: Path, small: Table) -> None:
    for seed in (10, 2):
        write_log(tmp_path, "b", seed, [line(step, x=3, y=1) for step in (10, 20)])
    (chart,) = charts.loss_charts(small, tmp_path, [])
    assert chart.title == "B"
    assert chart.caption == "B: 4.00 at the start, 4.00 after 2 epochs; 2 seeds."
    assert [trace["name"] for trace in chart.figure["data"]] == ["total, seed 2", "total, seed 10", "x", "y"]


def test_a_single_term_is_not_drawn_twice(tmp_path: Path, small: Table) -> None:
    write_log(tmp_path, "b", 0, [line(10, x=3)])
    (chart,) = charts.loss_charts(small, tmp_path, [])
    assert [trace["name"] for trace in chart.figure["data"]] == ["total, seed 0"]


def test_every_run_is_a_dot(small: Table) -> None:
    (chart,) = charts.run_charts(small)
    assert chart.title == "kNN"
    dots, mean = chart.figure["data"]
    assert (dots["x"], dots["y"]) == ([60.0, 62.0], ["A", "A"])
    assert mean["x"] == [61.0]


def test_names_are_not_markup_for_plotly(tmp_path: Path, small: Table) -> None:
    write_log(tmp_path, "b", 0, [{**line(10, x=1), "<b>&": 2}])
    (chart,) = charts.loss_charts(small, tmp_path, [])
    assert "&lt;b&gt;&amp;" in [trace["name"] for trace in chart.figure["data"]]


def test_plotly_accepts_every_chart(tmp_path: Path, small: Table) -> None:
    """Its own classes refuse an unknown property or a value of the wrong kind."""
    write_log(tmp_path, "b", 0, [line(step, x=3, y=1) for step in (10, 20)])
    measured = [Point("a", 200, 60.0, MEASURED), Point("b", 400, 61.0, MEASURED)]
    plane = np.array([[0.0, 1.0], [2.0, 3.0]])
    drawn = [
        *charts.run_charts(small),
        *charts.loss_charts(small, tmp_path, []),
        charts.cost_chart(published.select("imagenet_linear"), Metric("top1"), measured),
        charts.time_chart(Metric("top1"), measured),
        charts.class_chart("AP", {"cat": 50.0}),
        charts.precision_chart("precision", [0.0, 0.5, 1.0], {"IoU 0.5": [1.0, 0.5, 0.0]}),
        charts.confusion_chart("confusion", ["cat", "dog"], [[1.0, 0.0], [0.5, 0.5]]),
        charts.plane_chart("plane", plane, np.array([0, 1]), ["cat", "dog"], charts.Sheet("data:,", 40, 30)),
    ]
    for chart in drawn:
        assert chart is not None
        go.Figure(chart.figure)
