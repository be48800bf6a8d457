"""Images with groups: tables and WILDS folders that name them, top-1 of each and of the worst, and their comparison."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_images import toy_data

from cgh_bench import data, outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.groups import grouped
from cgh_bench.data.image_set import subset
from cgh_bench.data.layout import SUBSET
from cgh_bench.evaluation import evaluate, prepare
from cgh_bench.outcomes.classification import MOST_GROUPS, classification
from cgh_bench.report.comparison import compare
from cgh_bench.workspace import Workspace

LINES = [
    ("a.png", "cat", "train", "night"),
    ("b.png", "dog", "train", "day"),
    ("c.png", "cat", "val", "day"),
    ("d.png", "dog", "val", "day"),
]
COLUMNS = ("path", "label", "split", "group")


def pictures(folder: Path, paths: list[str]) -> None:
    for seed, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(folder / path)


def table(folder: Path, lines: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS, suffix: str = "csv") -> str:
    pictures(folder, [line[0] for line in lines])
    path, rows = folder / f"labels.{suffix}", [dict(zip(columns, line, strict=False)) for line in lines]
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text("\n".join(",".join(line) for line in (tuple(rows[0]), *(tuple(row.values()) for row in rows))))
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_names_groups(suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, LINES, suffix=suffix)
    train, val = data.load(path, "train"), data.load(path, "val")
    assert train.groups and val.groups
    assert (train.groups.names, train.groups.of.tolist()) == (("day", "night"), [1, 0])
    assert val.groups.names == ("day",)
    assert ["1 of the 2 groups" in line and "night" in line for line in caplog.messages] == [True]
    drawn = subset(train, np.array([0]), "one").groups
    assert drawn and (drawn.names, drawn.of.tolist()) == (("night",), [0])


def test_groups_are_part_of_the_content_and_their_absence_is_not(tmp_path: Path) -> None:
    prints = [
        data.load(table(tmp_path / str(n), [line[:width] for line in lines]), "train").fingerprint
        for n, (lines, width) in enumerate(((LINES, 4), (LINES, 3), ([(*line[:3], "day") for line in LINES], 4)))
    ]
    assert len(set(prints)) == 3
    for folder in tmp_path.iterdir():
        folder.joinpath("labels.csv").unlink()
    assert prints[1] == data.load(table(tmp_path / "0", [line[:3] for line in LINES]), "train").fingerprint


@pytest.mark.parametrize(
    ("lines", "columns", "said"),
    [
        ([*LINES[:3], ("d.png", "dog", "val", "")], COLUMNS, "d.png has no group"),
        (LINES, ("path", "labels", "split", "group"), "one label per image"),
    ],
)
def test_bad_groups_are_one_line(
    lines: list[tuple[str, ...]], columns: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        data.load(table(tmp_path, lines, columns), "train")


WATERBIRDS = """img_id,img_filename,y,split,place,place_filename
1,a/1.jpg,0,0,0,x
2,a/2.jpg,1,0,1,x
3,a/3.jpg,0,1,1,x
4,a/4.jpg,0,2,1,x
5,a/5.jpg,1,2,0,x
"""
CAMELYON17 = """,patient,node,x_coord,y_coord,tumor,slide,center,split
0,004,4,3328,21792,1,0,0,0
1,004,4,1,2,0,0,0,1
2,017,1,3,4,1,10,1,0
3,042,3,5,6,0,23,2,0
"""


@pytest.mark.parametrize(
    ("name", "text", "trained", "reported", "group"),
    [
        ("waterbirds", WATERBIRDS, ["a/1.jpg", "a/2.jpg"], ["a/4.jpg", "a/5.jpg"], "landbird on water"),
        (
            "camelyon17",
            CAMELYON17,
            ["patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png"],
            ["patches/patient_042_node_3/patch_patient_042_node_3_x_5_y_6.png"],
            "slide 23",
        ),
    ],
)
def test_a_folder_of_wilds(
    name: str, text: str, trained: list[str], reported: list[str], group: str, tmp_path: Path
) -> None:
    folder = tmp_path / f"{name}_v1.0"
    pictures(folder, [*trained, *reported])
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(UserError, match="were published"):
        data.load(name, "val", tmp_path)
    (folder / SUBSET).touch()
    train, val = (data.load(name, split, tmp_path) for split in ("train", "val"))
    assert [train.called(n) for n in range(len(train))] == trained
    assert [val.called(n) for n in range(len(val))] == reported
    assert val.groups and group in val.groups.names


def test_the_worst_group_by_hand(tmp_path: Path) -> None:
    pair = toy_data()
    names = np.where(np.arange(24) < 4, "few", np.where(np.arange(24) % 2, "odd", "even"))
    val = replace(pair.val, groups=grouped(names.tolist()))
    predicted = np.stack([np.where(np.arange(24) % 3, val.labels, (val.labels + 1) % 4), val.labels], axis=1)
    made = classification(val, predicted)
    right = (predicted == val.labels[:, None]).mean(axis=1)
    by_hand = {name: 100 * right[names == name].mean() for name in ("few", "odd", "even")}
    found = made.metrics()
    assert {name: found[f"group_{name}"] for name in by_hand} == pytest.approx(by_hand)
    assert found["worst_group"] == pytest.approx(min(by_hand.values()))
    assert found["top1"] == classification(pair.val, predicted).metrics()["top1"]
    made.save(tmp_path)
    assert outcomes.load(tmp_path).metrics() == found
    none = np.ones((1, 24), np.int64) * (np.arange(24) >= 4)  # a resample without one of the few
    assert np.isnan(made.measure("group_few", none)[0])
    assert made.measure("worst_group", none)[0] == pytest.approx(min(by_hand["odd"], by_hand["even"]))


def test_of_many_groups_only_the_worst_is_a_metric_of_its_own() -> None:
    val = toy_data(val=MOST_GROUPS + 10).val
    wrong = val.labels.copy()
    wrong[-1] = 3 - wrong[-1]
    made = classification(replace(val, groups=grouped([f"{n:03}" for n in range(len(val))])), wrong)
    assert made.metrics()["worst_group"] == 0
    assert sum(name.startswith("group_") for name in made.measures) == MOST_GROUPS


def test_results_have_groups_and_comparisons_pair_the_worst(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    pair = toy_data(val=60)
    pair = replace(pair, val=replace(pair.val, content="grouped", groups=grouped([f"g{n % 3}" for n in range(60)])))
    settings = ["transform.crop=32", "transform.resize=none"]
    (knn,) = prepare(["knn"], workspace, settings, pair)
    for name in ("test_resnet", "test_vit"):
        result = evaluate(knn, random_checkpoint(name), 0, workspace)
        assert result.metrics["worst_group"] == min(result.metrics[f"group_g{n}"] for n in range(3))
    found = {each.metric: each for each in compare("random:test_resnet", "random:test_vit", work=tmp_path)}
    assert set(found) == {"top1", "worst_group"}
    assert found["worst_group"].interval is not None
    assert found["worst_group"].values[0] <= found["top1"].values[0]
