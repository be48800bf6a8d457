"""Attentive probes: the head against attention by keys and values, and the grid against heads trained alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_images import toy_data

from cgh_bench import tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen.attentive import AttentiveHead, AttentiveProbe
from cgh_bench.tasks.attentive import Attentive
from cgh_bench.tasks.base import Folders

TOY = Attentive(
    "toy",
    AS_IS,
    crop=Crop(32, (0.8, 1.0)),
    learning_rates=(1e-3, 2e-2),
    weight_decays=(0.0, 5e-2),
    epochs=2,
    batch_size=8,
    held_out=0.25,
    head_width=16,
)


@pytest.fixture(scope="module")
def vit() -> Checkpoint:
    return random_checkpoint("test_vit")


def run(task: Attentive, checkpoint: Checkpoint, folder: Path) -> dict[str, float]:
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return task.run(checkpoint, toy_data(), Folders(folder / "run", folder / "cache"), 0)


def head(folder: Path, number: int) -> dict[str, torch.Tensor]:
    kept = torch.load(folder / "run" / "state.pt", weights_only=True)["learner"]["heads"]
    return {key.split(".", 1)[1]: tensor for key, tensor in kept.items() if key.startswith(f"{number}.")}


def test_the_head_is_attention_by_keys_and_values() -> None:
    ours, tokens = AttentiveHead(24, 5, 8, 0.5, seed=0), torch.randn(3, 7, 24)
    torch.nn.init.normal_(ours.value.bias)
    keys = torch.nn.functional.linear(tokens, ours.key.weight, torch.randn(24))  # any bias: no share depends on it
    parts = ours.query.expand(3, 1, -1), keys, ours.value(tokens)
    query, key, value = (part.view(3, -1, 3, 8).transpose(1, 2) for part in parts)
    pooled = torch.nn.functional.scaled_dot_product_attention(query, key, value).reshape(3, 24)
    torch.testing.assert_close(ours(tokens), ours.linear(pooled), atol=1e-5, rtol=1e-4)


def test_a_grid_is_heads_trained_alone_and_the_best_on_held_out_images_is_chosen(
    vit: Checkpoint, tmp_path: Path
) -> None:
    metrics = run(TOY, vit, tmp_path / "all")
    record = json.loads((tmp_path / "all/run/epochs.json").read_text())
    assert [tuple(each) for each in record["heads"]] == TOY.grid
    last = record["epochs"][-1]
    assert metrics["top1"] == last["val_top1"][int(np.argmax(last["held_out_top1"]))]
    assert metrics["top1_selected_on_val"] == max(max(epoch["val_top1"]) for epoch in record["epochs"])
    run(replace(TOY, learning_rates=(2e-2,), weight_decays=(5e-2,)), vit, tmp_path / "one")
    torch.testing.assert_close(head(tmp_path / "all", 3), head(tmp_path / "one", 0))
    decayed, free = head(tmp_path / "all", 3), head(tmp_path / "all", 2)
    assert not torch.equal(decayed["query"], free["query"])


def test_interrupted_is_uninterrupted(vit: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = run(TOY, vit, tmp_path / "whole")
    learn, steps = AttentiveProbe.learn, iter(range(6))  # of eight

    def interrupted(self: Any, batch: Any, factor: float) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return learn(self, batch, factor)

    monkeypatch.setattr(AttentiveProbe, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(TOY, vit, tmp_path / "part")
    monkeypatch.undo()
    assert run(TOY, vit, tmp_path / "part") == metrics
    torch.testing.assert_close(head(tmp_path / "whole", 1), head(tmp_path / "part", 1), rtol=0, atol=0)


def test_the_protocol_says_what_its_source_says(tmp_path: Path) -> None:
    capi = tasks.find("imagenet_attentive_capi")
    assert isinstance(capi, Attentive)
    rates = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    assert capi.learning_rates == pytest.approx([rate * 1024 / 256 for rate in rates])
    assert (capi.weight_decays, capi.held_out, capi.initial, capi.head_width) == ((5e-4, 1e-3, 5e-2), 0.1, 0.02, 64)
    assert (capi.epochs * capi.steps, capi.batch_size) == (12_500, 1024)
    shares = [capi.schedule.at(step / 1250, 10) for step in (0, 625, 1250, 6875, 12_500)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_tokens_that_heads_cannot_share_are_refused_by_plan_and_run(tmp_path: Path) -> None:
    task, backbone = replace(TOY, head_width=64), random_checkpoint("test_resnet")
    with pytest.raises(UserError, match="96 wide.*set head_width=32"):
        task.plan(backbone, toy_data(), Folders(tmp_path, tmp_path))
    with pytest.raises(UserError, match="96 wide.*set head_width=32"):
        run(task, backbone, tmp_path)
