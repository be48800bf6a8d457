"""A deviation from the protocol is planted, and `explain` must name it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import command
import numpy as np
import pytest
from PIL import Image

from cgh_bench import results
from cgh_bench.evaluation import evaluate, prepare
from cgh_bench.explain import axes
from cgh_bench.explain.axes import Variant
from cgh_bench.explain.study import PAIRS
from cgh_bench.explain.target import Target, target
from cgh_bench.explain.trial import Trial, verdict
from cgh_bench.reading.loading import load
from cgh_bench.workspace import Workspace

BASE = ("transform.resize=37", "transform.crop=32", "temperature=0.1")
ON_FEATURES = (("k", "k=1"), ("k", "k=50"), ("temperature", "temperature=0.02"))
"""Deviations that need no other features."""
OF_FEATURES = (
    ("interpolation", "transform.interpolation=bilinear"),
    ("cut", "transform.resize=32 transform.crop=32 transform.squash=True"),
    ("cut", "transform.resize=37 transform.crop=37 transform.squash=False"),
    ("feature", "feature=layer3"),
    ("preprocessing", "std=0.229,0.224,0.255"),
    ("preprocessing", "preprocessing=none"),
    ("channel order", "channel_order=BGR"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of four widths in noise, 48x40, and two results on them, without a network."""
    root, draw = tmp_path_factory.mktemp("explain"), np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 75)):
        for label in range(4):
            (root / "data" / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                phase = 2 * np.pi * draw.random()
                stripes = 30 * np.sin(2 * np.pi * np.arange(48) / (label + 2) + phase)[:, None] * (1, label / 3, 0.5)
                picture = draw.normal(110, 15, 3) + draw.normal(0, 30, (40, 48, 3)) + stripes
                path = root / "data" / split / f"class{label}" / f"{number}.png"
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
    measure(root, "control:pixels", "knn", *BASE)
    measure(root, "control:pixels", "logistic", "transform.resize=32", "transform.crop=32", "strengths=0.01,1")
    return root


def measure(
    folder: Path, name: str, task: str, *settings: str, images: tuple[str, ...] = (), store: bool = True
) -> float:
    workspace = Workspace(folder / "work")
    (evaluation,) = prepare([task], workspace, [*settings, f"data={folder / 'data'}"])
    return evaluate(evaluation, load(name, settings=images), 0, workspace, store=store).metrics["top1"]


def run(folder: Path, *arguments: str | Path) -> SimpleNamespace:
    return command.run("explain", *arguments, cwd=folder)


def require_named(folder: Path, number: int, axis: str, settings: str) -> None:
    given = tuple(settings.split())
    images = given if axis in axes.PREPROCESSING_AXES else ()
    name = results.read(folder / "work/results.jsonl")[0][number - 1].checkpoint_name
    planted = measure(folder, name, "knn", *BASE, *(() if images else given), images=images, store=False)
    told = run(folder, str(number), "--published", f"{planted:.4f}")
    assert told.returncode == 0, told.stderr
    assert f"{axis} ({settings})" in told.stdout.splitlines()[-2].partition(" closes it: +0.00")[0], told.stdout


@pytest.fixture
def on_features(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"k": ("k=1", "k=50"), "temperature": ("temperature=0.02", "temperature=0.04")}
    monkeypatch.setattr(axes, "TASK_AXES", few)
    monkeypatch.setattr(axes, "CUTS", ())
    monkeypatch.setattr(axes, "PREPROCESSING_AXES", {"channel order": ("channel_order=BGR",)})


@pytest.mark.usefixtures("on_features")
def test_the_planted_axis_is_named(folder: Path) -> None:
    for axis, settings in ON_FEATURES:
        require_named(folder, 1, axis, settings)
    kept = results.read(folder / "work/results.jsonl")[0]
    assert all(record.overridden for record in kept if record.protocol not in (kept[0].protocol, kept[1].protocol))
    assert {"channel_order=BGR"} < {setting for record in kept for setting in record.overridden}
    before = len(kept)
    told = run(folder, "1", "--published", "100")
    assert "No axis and no pair of them closes" in told.stdout
    added = results.read(folder / "work/results.jsonl")[0][before:]
    assert 1 <= len(added) <= PAIRS
    assert run(folder, "1", "--published", "100").stdout == told.stdout
    assert len(results.read(folder / "work/results.jsonl")[0]) == before + len(added)


@pytest.mark.usefixtures("on_features")
def test_variants_of_a_protocol_are_run_for_each_backbone(folder: Path) -> None:
    measure(folder, "control:channels", "knn", *BASE)
    both = ("knn", "control:pixels", "control:channels")
    before = len(results.read(folder / "work/results.jsonl")[0])
    planned = command.run("sensitivity", *both, "--dry-run", cwd=folder)
    assert "k=50" in planned.stdout and "channel_order" not in planned.stdout, planned
    assert len(results.read(folder / "work/results.jsonl")[0]) == before
    told = command.run("sensitivity", *both, cwd=folder)
    assert told.returncode == 0, told.stderr
    assert {line.split()[0] for line in told.stdout.splitlines()[1:3]} == set(both[1:])
    assert "variants tried" in told.stdout.splitlines()[-1]
    assert len(results.read(folder / "work/results.jsonl")[0]) > before


@pytest.fixture(scope="module")
def network(folder: Path) -> int:
    """The number of a result of a random network."""
    measure(folder, "random:test_resnet", "knn", *BASE)
    return len(results.read(folder / "work/results.jsonl")[0])


@pytest.mark.slow
@pytest.mark.parametrize(("axis", "settings"), [*ON_FEATURES, *OF_FEATURES])
def test_the_planted_axis_is_named_among_all(folder: Path, network: int, axis: str, settings: str) -> None:
    require_named(folder, network, axis, settings)


def test_a_dry_run_plans_and_writes_nothing(folder: Path) -> None:
    before = sorted((folder / "work").rglob("*"))
    told = run(folder, "2", "--published", "60", "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "selection on val: accuracy_selected_on_val" in told.stdout and "k=" not in told.stdout
    assert "feature extractions" in told.stdout and "each run: " in told.stdout.splitlines()[-1]
    assert sorted((folder / "work").rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("99", "--published", "60"), "no result 99"),
        (("3", "--published", "60"), "not animals_det"),
        (("4", "--published", "60"), "another tool"),
        (("1", "--published", "sixty"), "neither a number nor"),
        (("1", "--published", "160"), "between 0 and 100"),
        (("1", "--published", "voc_det,MoCo v2"), "no published top1"),
        (("1", "--published", "imagenet_linear,CGH"), "no published result of CGH"),
        (("1", "--published", "imagenet_linear,MoCo v2"), ",,200,asymmetric,top1,67.7"),
        (("1", "--published", "60", "--metric", "mAP"), "'mAP'"),
        (("1", "--published", "60", "--ckpt", "control:channels"), "--ckpt"),
    ],
)
def test_what_cannot_be_explained_is_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    store = folder / "work/results.jsonl"
    kept = store.read_bytes()
    first = results.read(store)[0][0]
    foreign = dataclasses.replace(first, origin={"source": "imported"})
    lines = kept.splitlines(keepends=True)
    store.write_bytes(b"".join(lines[:2]))
    results.append(store, dataclasses.replace(first, task="animals_det"), foreign)
    told = run(folder, *arguments)
    store.write_bytes(kept)
    assert told.returncode == 2 and told.stdout == "" and told.stderr.count("\n") == 1, told
    assert message in told.stderr


def test_a_row_of_the_published_results_is_a_number() -> None:
    assert target("imagenet_linear,MoCo v2,,800", "top1") == Target(71.1, 1)
    assert target("imagenet_linear,MoCo v2,,200,asymmetric,top1,67.5", "top1") == Target(67.5, 1)
    assert target("67.52", "top1") == Target(67.52, 2)


def test_a_pair_is_named_with_all_its_settings_and_a_worse_value_never_closes() -> None:
    one, other = Variant("k", ("k=1",)), Variant("channel order", of_images=("channel_order=BGR",))
    trials = [
        Trial(one, 52.0, 3.0, (-1.0, 7.0), 0.05, before=2.0),
        Trial(one + other, 54.9, 0.1, (-1.0, 1.2), 0.05, before=2.0),
    ]
    assert [trial.closes for trial in trials] == [False, True]
    named = "k and channel order (k=1 channel_order=BGR) closes it: +0.10 of +2.00 points of top1 remain."
    assert verdict(trials, 2.0, "top1") == named
    assert verdict(trials[:1], 2.0, "top1").startswith("No axis and no pair of them closes")
