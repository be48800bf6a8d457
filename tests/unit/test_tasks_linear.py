import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_images import toy_data, toy_pair

from cgh_bench import tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.descent import Cosine, Descent, Steps
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen.crops import Batches
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.heads import Heads, SgdProbe
from cgh_bench.frozen.selection import hold_out
from cgh_bench.networks.base import Backbone
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.linear import Linear
from cgh_bench.tasks.linear_sgd import LinearSgd
from cgh_bench.tasks.logistic import LogisticRegression

TOY = LinearSgd(
    data="toy",
    crop=Crop(32, (0.5, 1.0)),
    transform=AS_IS,
    learning_rates=(0.03, 1.0),
    weight_decays=(0.0, 1e-2),
    features=("layer4", "layer2+layer3"),
    epochs=4,
    batch_size=8,
    held_out=0.25,
)


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("test_resnet")


@pytest.fixture(scope="module")
def wide() -> Checkpoint:
    return random_checkpoint("resnet18")


def run(task: Any, backbone: Checkpoint, folder: Path, seed: int = 0) -> dict[str, float]:
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return task.run(backbone, toy_data(), Folders(folder / "run", folder / "cache"), seed)


def weights(folder: Path, feature: str) -> torch.Tensor:
    state = torch.load(folder / "run" / "state.pt", weights_only=True)
    return state["learner"][feature]["weights"]


def test_the_head_is_chosen_on_held_out_images_and_the_literatures_number_stands_beside(
    wide: Checkpoint, tmp_path: Path
) -> None:
    metrics = run(TOY, wide, tmp_path)
    record = json.loads((tmp_path / "run" / "epochs.json").read_text())
    assert [tuple(head) for head in record["heads"]] == TOY.grid
    assert len(TOY.grid) == 8
    last = record["epochs"][-1]
    chosen = int(np.argmax(last["held_out_top1"]))
    assert metrics["top1"] == last["val_top1"][chosen]
    assert "top5" not in metrics  # of four classes
    assert metrics["top1_selected_on_val"] == max(max(epoch["val_top1"]) for epoch in record["epochs"])
    assert len(record["epochs"]) == 4
    assert max(last["val_top1"]) > 50


def test_heads_trained_together_are_heads_trained_alone(backbone: Checkpoint, tmp_path: Path) -> None:
    run(TOY, backbone, tmp_path / "all")
    for number, (rate, decay) in ((1, (0.03, 1e-2)), (2, (1.0, 0.0))):
        feature = TOY.features[number - 1]
        one = replace(TOY, features=(feature,), learning_rates=(rate,), weight_decays=(decay,))
        run(one, backbone, tmp_path / str(number))
        torch.testing.assert_close(
            weights(tmp_path / "all", feature)[:, number], weights(tmp_path / str(number), feature)[:, 0]
        )


def test_without_augmentation_it_is_sgd_on_the_cached_features(backbone: Checkpoint, tmp_path: Path) -> None:
    plain = replace(TOY, features=("layer4",), crop=Crop(32, (1.0, 1.0), 0.0), epochs=5, batch_size=100, held_out=0.25)
    run(plain, backbone, tmp_path)
    images, _ = toy_pair()
    rows, _ = hold_out(images, 0.25, 0)
    bank = extract(backbone, images, AS_IS, "layer4", tmp_path / "cache")
    first = 0.01 * torch.randn(97, 4, generator=torch.Generator().manual_seed(0))
    first[-1] = 0
    heads = Heads(first, torch.tensor([0.03, 0.03, 1.0, 1.0]), torch.tensor([0, 1e-2] * 2), Descent())
    for epoch in range(5):
        heads.step(torch.tensor(bank.features[rows]), torch.tensor(images.labels[rows]), Cosine().at(epoch, 5))
    torch.testing.assert_close(weights(tmp_path, "layer4"), heads.weights, atol=1e-4, rtol=1e-3)


def test_interrupted_is_uninterrupted(backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = run(TOY, backbone, tmp_path / "whole")
    assess = SgdProbe.assess
    calls = []

    def interrupted(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return assess(self)

    monkeypatch.setattr(SgdProbe, "assess", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(TOY, backbone, tmp_path / "part")
    monkeypatch.setattr(SgdProbe, "assess", assess)
    assert run(TOY, backbone, tmp_path / "part") == metrics
    for feature in TOY.features:
        assert torch.equal(weights(tmp_path / "whole", feature), weights(tmp_path / "part", feature))


def test_a_backbone_whose_statistics_move_is_caught(
    wide: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled_all = Backbone.pooled_all

    def careless(network: Backbone, images: torch.Tensor, targets: Any) -> Any:
        return pooled_all(network.train(), images, targets)

    monkeypatch.setattr(Backbone, "pooled_all", careless)
    with pytest.raises(CheckFailed, match="must stay frozen"):
        run(replace(TOY, epochs=1), wide, tmp_path)


def test_one_head_needs_nothing_held_out(backbone: Checkpoint, tmp_path: Path) -> None:
    one = replace(
        TOY, features=("layer4",), learning_rates=(0.3,), weight_decays=(0.0,), held_out=0.0, descent=Descent(trust=0.1)
    )
    metrics = run(one, backbone, tmp_path)
    last = json.loads((tmp_path / "run" / "epochs.json").read_text())["epochs"][-1]
    assert set(last) == {"val_top1", "val_top5"}
    assert metrics["top1"] == last["val_top1"][0]


def test_all_heads_diverged_is_said(backbone: Checkpoint, tmp_path: Path) -> None:
    broken = replace(TOY, learning_rates=(1e35,), weight_decays=(1e5,))
    with pytest.raises(UserError, match="the loss is not finite in epoch 1"):
        run(broken, backbone, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rates": ()}, "learning_rates"),
        ({"learning_rates": (0.1, 0.0)}, "must be above 0"),
        ({"weight_decays": (-1.0,)}, "not below"),
        ({"features": ()}, "features is empty"),
        ({"epochs": 0}, "epochs 0 and batch_size 8 must be at least 1"),
        ({"batch_size": 0}, "epochs 4 and batch_size 0 must be at least 1"),
        ({"held_out": 1.0}, "held_out 1.0"),
        ({"initial": -0.1}, "initial -0.1 must not be below 0"),
        ({"held_out": 0.0}, "a grid of 8 heads needs held-out images"),
    ],
)
def test_impossible_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        replace(TOY, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"trust": 0.0}])
def test_impossible_descents(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"momentum .* must be in \[0, 1\), trust .* above 0"):
        Descent(**wrong)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"tolerance": 0.0}])
@pytest.mark.parametrize("task", [Linear, LogisticRegression])
def test_impossible_fits(task: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"iterations .* at least 1, tolerance .* above 0"):
        task(**wrong)


def test_the_protocols_say_what_their_sources_say() -> None:
    moco = tasks.find("imagenet_linear_moco")
    assert isinstance(moco, LinearSgd)
    assert (moco.learning_rates, moco.weight_decays, moco.batch_size, moco.epochs) == ((30.0,), (0.0,), 256, 100)
    assert (moco.schedule, moco.crop, moco.held_out, moco.initial) == (Steps((60, 80), 0.1), Crop(224), 0.0, 0.01)
    cgh, swav, simsiam, dinov2 = (
        tasks.find(f"imagenet_linear_{name}") for name in ("cgh", "swav", "simsiam", "dinov2")
    )
    assert cgh == replace(moco, learning_rates=(0.3,), schedule=Cosine("step"))
    assert swav == replace(moco, learning_rates=(0.3,), weight_decays=(1e-6,), schedule=Cosine("epoch"))
    assert tasks.find("imagenet_linear_vicreg") == replace(swav, learning_rates=(0.02,))
    assert isinstance(simsiam, LinearSgd)
    assert (simsiam.learning_rates[0], simsiam.batch_size, simsiam.epochs) == (0.1 * 4096 / 256, 4096, 90)
    assert simsiam.descent == Descent(0.9, 0.001)
    assert isinstance(dinov2, LinearSgd)
    assert len(dinov2.grid) == 26
    assert dinov2.learning_rates[-1] == pytest.approx(0.1 * 1024 / 256)


def test_the_cached_probe_keeps_its_choice(backbone: Checkpoint, tmp_path: Path) -> None:
    metrics = run(Linear("toy", AS_IS), backbone, tmp_path)
    grid = json.loads((tmp_path / "run" / "grid.json").read_text())
    chosen = max(range(12), key=lambda i: (grid["held_out_top1"][i], grid["weight_decays"][i]))
    assert grid["converged"] == [True] * 12
    assert metrics["converged"] == 100
    assert grid["chosen"] == grid["weight_decays"][chosen]
    assert metrics["top1"] == grid["val_top1"][chosen]
    assert metrics["top1_selected_on_val"] == max(grid["val_top1"])
    assert metrics["top1"] > 80


def test_the_plan_says_how_long_and_how_large(backbone: Checkpoint, tmp_path: Path) -> None:
    lines = TOY.plan(backbone, toy_data(), Folders(tmp_path / "run", tmp_path / "cache"))
    assert lines[0].startswith("features layer4, layer2+layer3 of toy/val: 24 images, ")
    assert lines[1] == "8 heads, 0 MB of memory with momentum and gradient"
    assert lines[2].startswith("4 epochs of 40 random crops, 20 steps, about ")


def test_an_epoch_of_so_many_steps_continues_the_passes() -> None:
    images, rows = toy_data().train, np.arange(4, 40)
    device = torch.device("cpu")
    endless = Batches(images, rows, Crop(32), 16, 0, steps=3)
    found = [batch for epoch in range(3) for batch in endless.epoch(epoch, device)]
    assert len(endless) == 3
    assert [len(batch.labels) for batch in found] == [16] * 9
    labels = torch.cat([batch.labels for batch in found])
    for number in range(4):  # 144 images are four passes over 36
        part = labels[36 * number : 36 * (number + 1)]
        assert torch.equal(part.sort().values, torch.tensor(images.labels[rows]).sort().values)
    once = next(Batches(images, rows, Crop(32), 36, 0).epoch(0, device))
    assert torch.equal(torch.cat([batch.images for batch in found])[:36], once.images)


@pytest.mark.parametrize(
    ("name", "features", "rates", "steps"),
    [
        ("imagenet_linear_dinov2_vit", ("cls", "cls+patch_mean", "last4", "last4+patch_mean"), 13, 1250),
        ("imagenet_linear_dinov3_vit", ("cls+patch_mean",), 13, 1250),
        ("imagenet_linear_dino_vit_small", ("last4",), 1, 0),
        ("imagenet_linear_dino_vit_base", ("cls+patch_mean",), 1, 0),
        ("imagenet_linear_mae", ("cls",), 1, 0),
    ],
)
def test_probes_of_vits_say_what_their_sources_say(name: str, features: Any, rates: int, steps: int) -> None:
    task = tasks.find(name)
    assert isinstance(task, LinearSgd)
    assert (task.features, len(task.learning_rates), task.steps, task.weight_decays) == (features, rates, steps, (0.0,))
    assert (task.transform.interpolation, task.held_out > 0) == ("bicubic", rates > 1)
    vit = random_checkpoint("vit_tiny_patch16_224").architecture
    widths = [len(vit.targets(feature)) for feature in features]
    assert widths == [{"cls": 1, "cls+patch_mean": 2, "last4": 4, "last4+patch_mean": 5}[name] for name in features]
    if name.endswith("mae"):
        assert (task.learning_rates, task.norm, task.batch_size, task.epochs) == ((6.4,), 1e-6, 16_384, 90)
        assert task.descent == Descent(0.9, 0.001, spare_biases=True)
        shares = [task.schedule.at(epoch, 90) for epoch in (0, 5, 10, 50, 90)]
        assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_a_norm_before_the_heads_is_trained_and_kept(backbone: Checkpoint, tmp_path: Path) -> None:
    task = replace(TOY, features=("layer4",), norm=1e-6, epochs=2, steps=3)
    run(task, backbone, tmp_path)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["learner"]["layer4"]
    assert state["norm.num_batches_tracked"] == 6
    assert state["norm.running_mean"].abs().max() > 0
