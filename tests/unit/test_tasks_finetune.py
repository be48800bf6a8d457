from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_images import toy_data

from cgh_bench import tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.descent import Cosine, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen.cost import Measured
from cgh_bench.frozen.finetuning import Tuning
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.finetune import FineTune

TOY = FineTune(
    data="toy",
    crop=Crop(32, (0.8, 1.0)),
    transform=AS_IS,
    trunk_rate=0.01,
    head_rate=0.1,
    schedule=Cosine(),
    epochs=2,
    batch_size=8,
)


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("test_resnet")


def run(task: FineTune, backbone: Checkpoint, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    return task.run(backbone, toy_data(), Folders(folder, folder / "cache"), 0)


def network(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["learner"]["network"]


def test_it_learns(backbone: Checkpoint, tmp_path: Path) -> None:
    metrics = run(replace(TOY, trunk_rate=0.001, head_rate=0.02, epochs=6), backbone, tmp_path)
    assert metrics["top1"] >= 50  # 25 is chance
    assert metrics["top1"] <= metrics["top1_selected_on_val"]
    assert "top5" not in metrics  # of four classes


def test_backbone_and_head_have_a_rate_each(backbone: Checkpoint, tmp_path: Path) -> None:
    run(replace(TOY, trunk_rate=0.0, epochs=1), backbone, tmp_path / "backbone")
    run(replace(TOY, head_rate=0.0, epochs=1), backbone, tmp_path / "head")
    fixed, moved = network(tmp_path / "backbone"), network(tmp_path / "head")
    before = backbone.weights["layer4.0.conv2.weight"]
    assert torch.equal(fixed["backbone.layer4.0.conv2.weight"], before)
    assert not torch.equal(moved["backbone.layer4.0.conv2.weight"], before)
    assert not torch.equal(fixed["head.weight"], moved["head.weight"])
    # BatchNorm is trained: its statistics follow the data even where nothing else moves.
    assert not torch.equal(fixed["backbone.bn1.running_mean"], backbone.weights["bn1.running_mean"])


def test_interrupted_is_uninterrupted_and_the_given_weights_stay(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {key: tensor.clone() for key, tensor in backbone.weights.items()}
    metrics = run(TOY, backbone, tmp_path / "whole")
    learn = Tuning.learn
    steps = iter(range(7))  # of ten

    def interrupted(self: Any, batch: Any, factor: float) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return learn(self, batch, factor)

    monkeypatch.setattr(Tuning, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(TOY, backbone, tmp_path / "part")
    monkeypatch.setattr(Tuning, "learn", learn)
    assert run(TOY, backbone, tmp_path / "part") == metrics
    whole, part = network(tmp_path / "whole"), network(tmp_path / "part")
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    assert all(torch.equal(before[key], backbone.weights[key]) for key in before)


def test_only_the_labelled_share_is_seen(backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    learn = Tuning.learn

    def noting(self: Any, batch: Any, factor: float) -> float:
        seen.append(batch.total)
        return learn(self, batch, factor)

    monkeypatch.setattr(Tuning, "learn", noting)
    run(replace(TOY, labelled=0.3, epochs=1), backbone, tmp_path)
    assert sum(seen) == 12


class Unreadable(GreyImages):
    def image(self, index: int) -> torch.Tensor:
        if index == 7:
            raise UserError("cannot read 7.png")
        return super().image(index)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_cannot_be_read_is_found_before_training(
    split: str, backbone: Checkpoint, tmp_path: Path
) -> None:
    data = toy_data()
    broken = replace(data, **{split: Unreadable(**vars(getattr(data, split)))})
    with pytest.raises(UserError, match="^cannot read 7.png$"):
        TOY.run(backbone, broken, Folders(tmp_path, tmp_path / "cache"), 0)
    assert not list(tmp_path.iterdir())


def test_the_plan_counts_the_labelled_images_and_val(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgh_bench.frozen.cost.measured", lambda work: Measured(12.0, 0))
    (line,) = replace(TOY, labelled=0.3).plan(backbone, toy_data(), Folders(tmp_path, tmp_path))
    # Two epochs of 3 times 12 forward passes to train and 24 to assess.
    assert line == "2 epochs of 12 random crops, 4 steps, about 10 s at 12 forward passes a second"


def test_several_processes_without_gpus_cannot_synchronise_batch_norm(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgh_bench.core.dist.world_size", lambda: 2)
    with pytest.raises(UserError, match="BatchNorm, which needs a GPU each"):
        run(TOY, backbone, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 1}, r"a step has one image \(40 images, batch_size 1\)"),
    ],
)
def test_plan_and_run_refuse_the_same(
    backbone: Checkpoint, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    task = replace(TOY, **wrong)
    for refused in (
        lambda: task.plan(backbone, toy_data(), Folders(tmp_path, tmp_path)),
        lambda: run(task, backbone, tmp_path),
    ):
        with pytest.raises(UserError, match=message):
            refused()


def test_a_rate_that_explodes_is_said(backbone: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss is not finite in epoch 1"):
        run(replace(TOY, trunk_rate=1e20, head_rate=1e20), backbone, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trunk_rate": -1.0}, "trunk_rate -1.0"),
        ({"head_rate": -0.1}, "head_rate -0.1"),
        ({"momentum": -1.0}, "momentum -1.0"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001"),
        ({"labelled": 2.0}, "labelled=2 must be a fraction"),
        ({"labelled": 0.0}, "labelled=0 must be a fraction"),
        ({"epochs": 0}, "epochs 0 and batch_size .* must be at least 1"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
    ],
)
def test_impossible_settings(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(TOY, **wrong)


@pytest.mark.parametrize(
    ("name", "trunk_rate", "head_rate", "schedule", "epochs"),
    [
        ("imagenet_1pct_swav", 0.02, 5.0, Steps((12, 16), 0.2), 20),
        ("imagenet_10pct_swav", 0.01, 0.2, Steps((12, 16), 0.2), 20),
        ("imagenet_1pct_vicreg", 0.03, 0.08, Cosine("epoch"), 20),
        ("imagenet_10pct_vicreg", 0.01, 0.1, Cosine("epoch"), 20),
        ("imagenet_1pct_barlow", 0.005, 0.5, Cosine("epoch"), 20),
        ("imagenet_10pct_cgh", 0.005, 0.02, Steps((30, 60), 0.1), 70),
        ("imagenet_1pct_lewel", 1e-4, 1.0, Steps((30, 40), 0.1), 50),
        ("imagenet_10pct_lewel", 0.01, 0.1, Steps((30, 40), 0.1), 50),
    ],
)
def test_the_protocols_say_what_their_sources_say(
    name: str, trunk_rate: float, head_rate: float, schedule: Any, epochs: int
) -> None:
    task = tasks.find(name)
    assert isinstance(task, FineTune)
    assert (task.trunk_rate, task.head_rate, task.schedule, task.epochs) == (trunk_rate, head_rate, schedule, epochs)
    assert (task.batch_size, task.data) == (256, f"imagenet1k_{name.split('_')[1]}")
    assert task.weight_decay == (1e-4 if "lewel" in name else 0.0)
