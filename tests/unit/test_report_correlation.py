"""Rank correlations between metrics over the checkpoints of a store."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner
from reporting import result, use_fake_tasks
from scipy.stats import spearmanr

from cgh_bench import results
from cgh_bench.cli import app
from cgh_bench.core.errors import UserError
from cgh_bench.report.correlation import Correlation, correlations


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)


FIRST = np.array([1.0, 2, 2, 4, 5, 6, 7])
SECOND = np.array([2.0, 1, 3, 3, 6, 5, 9])


def store() -> list[results.Result]:
    one = [result(f"r{n}", value) for n, value in enumerate(FIRST)]
    return one + [result(f"r{n}", value, task="linear") for n, value in enumerate(SECOND)]


def of_linear(records: list[results.Result]) -> Correlation:
    found = correlations(records, "knn.top1")
    (other,) = (each for each in found if each.protocol.startswith("linear@") and each.metric == "top1")
    return other


def test_is_scipys_spearman_with_an_interval_around_it() -> None:
    other = of_linear(store())
    assert other.rho == pytest.approx(float(spearmanr(FIRST, SECOND).statistic))
    assert other.checkpoints == 7
    assert other.low < other.rho <= other.high <= 1


def test_only_common_checkpoints_current_data_and_own_settings_count() -> None:
    records = store()
    strays = [
        dataclasses.replace(records[0], metrics={"top1": 99.0}, overridden=("k",)),
        dataclasses.replace(records[1], metrics={"top1": 99.0}, data="older", started="2020-01-01T00:00:00+00:00"),
        result("alone", 50.0),
    ]
    assert of_linear([*strays, *records]) == of_linear(records)


def test_few_checkpoints_have_no_correlation() -> None:
    assert all(np.isnan(each.rho) for each in correlations(store()[:3] + store()[7:10], "knn.top1"))


@pytest.mark.parametrize(("records", "named"), [([], "no results"), (store, "knn.top1")])
def test_a_metric_that_nobody_measured_is_refused(records: object, named: str) -> None:
    with pytest.raises(UserError, match=named):
        correlations(records() if callable(records) else records, "knn.top2")  # type: ignore[arg-type]


def test_the_command_prints_a_line_each(tmp_path: object) -> None:
    results.append(tmp_path / "results.jsonl", *store())  # type: ignore[operator]
    done = CliRunner().invoke(app, ["results", "correlate", "knn.top1", "--work", str(tmp_path)])
    assert done.exit_code == 0
    rho = float(spearmanr(FIRST, SECOND).statistic)
    assert f"{rho:+.2f}" in done.stdout
