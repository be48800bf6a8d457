"""Tables are read strictly: what is wrong is named, with the nearest right names."""

from pathlib import Path

import pytest
from reporting import DEFINITION, use_fake_tasks, write_definition

from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.report import definition


def test_every_table_of_the_package_names_only_what_exists() -> None:
    assert "animals" in definition.names()
    for name in definition.names():
        definition.require_recipes(definition.load(name), registered("cgh_bench.pretrain.methods", "RECIPES"))


def test_a_file_is_read_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)
    read = definition.load(write_definition(tmp_path))
    assert (read.name, read.title, read.description) == ("small", "Small", "Two rows.")
    assert [(row.label, row.recipe) for row in read.rows] == [("A", "a"), ("B", "b")]
    assert [(c.header, c.task, c.metric) for c in read.columns] == [
        ("kNN", "knn", "top1"),
        ("linear error", "linear", "error"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('task = "knn"', 'task = "kn"', r"column 'kNN': unknown task 'kn'; did you mean knn\?"),
        ('metric = "top1"', 'metric = "top5"', r"column 'kNN': unknown metric of knn 'top5'; did you mean top1\?"),
        ('label = "B"', 'lable = "B"', r"unknown field 'lable'; did you mean label\?"),
        ('label = "B"', "", r"rows\.1\.label is missing"),
        ('label = "B"', "label = 3", r"rows\.1\.label = 3"),
        ('label = "B"', 'label = "A"', r"two rows have the label 'A'"),
        ('recipe = "b"', 'recipe = "a"', r"two rows have the recipe 'a'"),
        ('header = "linear error"', 'header = "kNN"', r"two columns have the header 'kNN'"),
        ('title = "Small"', "", r"title is missing"),
        ('title = "Small"', "title =", r"not valid TOML"),
        ("[[columns]]", "[[column]]", r"unknown field 'column'; did you mean columns\?"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    use_fake_tasks(monkeypatch)
    path = write_definition(tmp_path, DEFINITION.replace(old, new))
    with pytest.raises(UserError, match=message):
        definition.load(path)


def test_an_unknown_table_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown table 'animal'; did you mean animals\?"):
        definition.load("animal")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"no file nowhere\.toml"):
        definition.load("nowhere.toml")


def test_an_unknown_recipe_is_named_with_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)
    read = definition.load(write_definition(tmp_path))
    definition.require_recipes(read, ["a", "b", "c"])
    with pytest.raises(UserError, match=r"recipe in table small, row 'B': 'b'; known: a, c"):
        definition.require_recipes(read, ["a", "c"])


def test_a_metric_may_have_another_name_where_it_was_published() -> None:
    column = next(c for c in definition.load("transfer_linear").columns if c.header == "Pets")
    row = next(r for r in definition.load("transfer_linear").rows if r.method == "BYOL" and not r.detail)
    assert (column.metric, column.name_when_published) == ("accuracy", "Pets")
    assert {each.metric for each in definition.published_results(row, column)} == {"Pets"}


def test_every_column_with_a_task_that_follows_a_published_protocol_can_be_measured() -> None:
    """A table whose protocol has a task has a measured column, and some row to measure."""
    from cgh_bench import published

    for name in definition.names():
        table = definition.load(name)
        for column in table.columns:
            if column.published and published.protocols()[column.published].tasks and column.metric != "Mean":
                assert column.task, (name, column.header)
        if any(column.task for column in table.columns):
            assert any(row.recipe or row.checkpoint for row in table.rows), name
