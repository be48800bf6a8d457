"""Fine-tuning of vision transformers: rates by layer, network, augmentation and mixing against MAE's and BEiT's."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_images import toy_data

from cgh_bench import tasks
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen.crops import Batch, drawn_by
from cgh_bench.frozen.judge import Judge
from cgh_bench.frozen.vit_tuning import Augmented, Mixing, VitNetwork, VitTuning, by_layer
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.finetune_vit import FineTuneVit

CPU = torch.device("cpu")
TOY = FineTuneVit("toy", transform=AS_IS, crop=Crop(32, (0.5, 1.0)), rate=2e-3, epochs=2, batch_size=8, drop_path=0.2)
BEIT = Timm(
    "beit_base_patch16_224", (("depth", 4), ("embed_dim", 16), ("img_size", 32), ("num_heads", 2), ("patch_size", 8))
)


@pytest.fixture(scope="module")
def vit() -> Checkpoint:
    return random_checkpoint("test_vit")


@pytest.fixture(scope="module")
def beit() -> Checkpoint:
    return Checkpoint("beit", BEIT, BEIT.build().state_dict(), Preprocessing(), Origin("test"))


def run(checkpoint: Checkpoint, folder: Path, task: FineTuneVit = TOY) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    return task.run(checkpoint, toy_data(), Folders(folder, folder / "cache"), 0)


@pytest.mark.parametrize(("name", "depth"), [("vit_tiny_patch16_32", 12), ("beit", 4)])
def test_rates_and_decays_are_the_origins(name: str, depth: int, beit: Checkpoint) -> None:
    """MAE's util/lr_decay.py, BEiT's optim_factory.py: the stem is layer 0, then the blocks, the head with its norm."""
    network = VitNetwork(beit if name == "beit" else random_checkpoint(name), 10, 0.0, 0)
    found = {
        id(parameter): (group["first_rate"], group["weight_decay"])
        for group in by_layer(network, 2e-3, 0.65, 0.05).param_groups
        for parameter in group["params"]
    }
    parameters = dict(network.network.named_parameters())
    assert len(found) == len(parameters)
    for key, parameter in parameters.items():
        stem = key.startswith(("cls_token", "pos_embed", "patch_embed"))
        layer = 0 if stem else int(key.split(".")[1]) + 1 if key.startswith("blocks") else depth + 1
        kept = parameter.ndim == 1 or key in ("cls_token", "pos_embed")
        assert found[id(parameter)] == pytest.approx((2e-3 * 0.65 ** (depth + 1 - layer), 0.0 if kept else 0.05)), key


def test_the_network_is_the_pretrained_one_with_a_norm_behind_the_mean_of_the_patches(vit: Checkpoint) -> None:
    network, pixels = VitNetwork(vit, 10, 0.3, 0).eval(), torch.rand(2, 3, 32, 32)
    nn.init.normal_(network.network.head.weight)
    backbone = vit.backbone()
    last = backbone.outputs(vit.preprocessing(pixels))["block6"]
    mean = nn.functional.layer_norm(last[:, backbone.prefix :].mean(dim=1), (64,), eps=1e-6)
    torch.testing.assert_close(network(pixels), network.network.head(mean), atol=1e-5, rtol=1e-4)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.network.blocks]
    assert rates == pytest.approx(np.linspace(0, 0.3, len(rates)))
    assert float(VitNetwork(vit, 10, 0.0, 0).network.head.weight.detach().std()) == pytest.approx(2e-5, rel=0.1)


def test_a_crop_depends_on_its_seed_alone_and_leaves_other_random_numbers_as_they_were() -> None:
    image = toy_data(side=48).train.image(0)
    augmented = Augmented(Crop(32, interpolation="bicubic"), "rand-m9-mstd0.5-inc1", (0.5, 0.5, 0.5))
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with drawn_by(3):
        one, two = augmented(image), augmented(image)
    with drawn_by(3):
        assert torch.equal(augmented(image), one) and not torch.equal(one, two)
    for seed in range(20):  # of magnitude 10, which leaves no bit to posterize
        with drawn_by(seed):
            replace(augmented, policy="rand-m10-n4-inc1")(image)
    assert one.shape == (3, 32, 32) and one.min() >= 0 and one.max() <= 1
    assert random.getstate() == states[0] and np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.0, 0.0), (0.8, 0.0), (0.0, 1.0)])
def test_images_are_erased_then_mixed_and_labels_are_soft(
    mixup: float, cutmix: float, vit: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data, seen = VitNetwork(vit, 4, 0.0, 0).train(), toy_data(), {}

    def noting(images: torch.Tensor) -> torch.Tensor:
        seen["images"] = images.detach().clone()
        return network.network.head(images.mean(dim=(2, 3)).repeat(1, 22)[:, :64])

    nn.init.normal_(network.network.head.weight)
    optimizer = by_layer(network, 1e-3, 0.65, 0.05)
    tuning = VitTuning(network, optimizer, Judge(data.val, AS_IS, 8), CPU, Mixing(mixup, cutmix, 0.1, 0.0, 4), 0)
    monkeypatch.setattr(tuning, "parallel", noting)
    pixels, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    loss = tuning.loss(Batch(pixels.clone(), labels, 4))
    inputs = vit.preprocessing(pixels)
    other, one_hot = inputs.flip(0), torch.eye(4)
    if cutmix:
        kept = (seen["images"] == inputs).all(dim=1)
        share = float(kept[0].double().mean())
        assert ((seen["images"] == other).all(dim=1) | kept).all() and 0 < share < 1
    else:
        share = float((seen["images"] - other).norm() / (inputs - other).norm())
        torch.testing.assert_close(seen["images"], share * inputs + (1 - share) * other)
        assert (share == pytest.approx(1)) == (not mixup)
    targets = 0.9 * (share * one_hot + (1 - share) * one_hot.flip(0)) + 0.1 / 4
    torch.testing.assert_close(loss, nn.functional.cross_entropy(noting(seen["images"]), targets))
    erasing = VitTuning(network, optimizer, Judge(data.val, AS_IS, 8), CPU, Mixing(0, 0, 0.1, 1.0, 4), 0)
    monkeypatch.setattr(erasing, "parallel", noting)
    erasing.loss(Batch(pixels.clone(), labels, 4))
    changed = (seen["images"] != inputs).all(dim=1).flatten(1).double().mean(dim=1)
    assert ((changed > 0.01) & (changed < 0.45)).all()


def test_interrupted_is_uninterrupted(vit: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = run(vit, tmp_path / "whole")
    learn, steps = VitTuning.learn, iter(range(7))  # of ten

    def interrupted(self: Any, batch: Any, factor: float) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return learn(self, batch, factor)

    monkeypatch.setattr(VitTuning, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(vit, tmp_path / "part")
    monkeypatch.undo()
    assert run(vit, tmp_path / "part") == metrics
    whole, part = (torch.load(tmp_path / n / "state.pt", weights_only=True)["learner"] for n in ("whole", "part"))
    torch.testing.assert_close(whole["network"], part["network"], rtol=0, atol=0)
    assert not torch.equal(whole["network"]["network.patch_embed.proj.weight"], vit.weights["patch_embed.proj.weight"])


def test_other_networks_and_batches_that_cannot_be_mixed_are_refused(vit: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test_resnet is not a vision transformer; take `finetune`"):
        TOY.check_backbone(random_checkpoint("test_resnet"))
    folders = Folders(tmp_path, tmp_path)
    for size, advice in ((7, 40), (41, 40), (1024, 40)):
        task = replace(TOY, batch_size=size)
        for refused in (
            lambda task=task: task.plan(vit, toy_data(), folders),
            lambda task=task: run(vit, tmp_path, task),
        ):
            with pytest.raises(UserError, match=f"batch_size {size} must be .* set batch_size={advice} or less"):
                refused()


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"mixup": -0.1}, {"erased": 1.5}, {"smoothing": -0.1}])
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name} {wrong[name]:g}"):
        replace(TOY, **wrong)


@pytest.mark.parametrize(
    ("name", "base_rate", "layer_decay", "drop_path", "warmup", "epochs"),
    [
        # MAE's FINETUNE.md, rates per 256 images; BEiT's get_started_for_image_classification.md has them whole.
        ("mae_base", 5e-4, 0.65, 0.1, 5, 100),
        ("mae_large", 1e-3, 0.75, 0.2, 5, 50),
        ("mae_huge", 1e-3, 0.75, 0.3, 5, 50),
        ("beit_base", 1e-3, 0.65, 0.1, 20, 100),
        ("beit_large", 2.5e-4, 0.75, 0.2, 5, 50),
    ],
)
def test_the_protocols_say_what_their_sources_say(
    name: str, base_rate: float, layer_decay: float, drop_path: float, warmup: int, epochs: int
) -> None:
    task = tasks.find(f"imagenet_finetune_{name}")
    assert isinstance(task, FineTuneVit)
    assert task.rate == pytest.approx(base_rate * 1024 / 256)
    assert (task.layer_decay, task.drop_path, task.epochs, task.batch_size) == (layer_decay, drop_path, epochs, 1024)
    assert (task.policy, task.erased, task.mixup, task.cutmix) == ("rand-m9-mstd0.5-inc1", 0.25, 0.8, 1.0)
    assert (task.smoothing, task.weight_decay) == (0.1, 0.05)
    middle = (warmup + epochs) / 2
    rates = [task.rate * task.schedule.at(epoch, epochs) for epoch in (0, warmup / 2, warmup, middle, epochs)]
    assert rates == pytest.approx([0, task.rate / 2, task.rate, (task.rate + 1e-6) / 2, 1e-6])
