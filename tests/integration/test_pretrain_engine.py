"""What the loop can do beside training: accumulate, clip, watch, keep, put up with unreadable files."""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pretrain_process import STEPS_PER_EPOCH, STRONG, TINY_CGH, TINY_MOCO, made_up
from test_pretrain import SCRIPT, assert_same_run, interrupt_in_step, one_thread
from torch import nn
from torch.nn import functional as F

from cgh_bench import data
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import load_canonical
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages
from cgh_bench.pretrain.batches import Batches
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.methods.byol import Byol
from cgh_bench.pretrain.methods.dino import Dino
from cgh_bench.pretrain.methods.random_init import RandomInit
from cgh_bench.pretrain.methods.simsiam import SimSiam
from cgh_bench.pretrain.methods.supervised import Supervised
from cgh_bench.pretrain.parts import Encoder, rising, synchronised
from cgh_bench.pretrain.recipe import Method, find
from cgh_bench.pretrain.run import begin, descend
from cgh_bench.pretrain.train import check, train
from cgh_bench.pretrain.views import Views
from cgh_bench.pretrain.watching import Watching, label_free


@pytest.fixture(autouse=True)
def _made_up_data(monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())


@dataclass(eq=False)
class Plain(Method):
    """A linear map without BatchNorm: parts of a batch do not know of each other."""

    def add_networks(self, architecture):
        self.student = Encoder(architecture.build(), nn.Identity()).requires_grad_(False)
        self.head = nn.Linear(3 * 33 * 33, 4)
        self.begun = []

    def begin_step(self, step, steps):
        self.begun.append((step, steps))

    def forward(self, views, epoch, labels=None):
        first, second = (self.head(view.flatten(1)) for view in views)
        return {"distance": F.mse_loss(first, second), "size": (first.norm(dim=1) - 1).square().mean()}


PLAIN = replace(TINY_CGH, method=Plain(), base_lr=0.01)


def after_steps(recipe, folder, steps=3):
    run = begin(recipe, RunFolder(folder), torch.device("cpu"), Batches(recipe, made_up()))
    lines = [descend(run, run.batches[step])() for step in range(steps)]
    return run, lines


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path):
    whole_batch, lines = after_steps(PLAIN, tmp_path)
    for parts in (2, 8):
        run, same = after_steps(replace(PLAIN, accumulate=parts), tmp_path)
        torch.testing.assert_close(run.method.head.weight, whole_batch.method.head.weight, rtol=1e-5, atol=1e-7)
        assert len(run.method.begun) == 3, "teachers follow once a step, however many parts it has"
        for a, b in zip(lines, same, strict=True):
            assert a == pytest.approx(b, rel=1e-4), "loss, and the rate, which goes by the whole batch"


def test_a_method_knows_the_place_of_a_step_in_the_run(tmp_path):
    """Whatever epochs are set, BYOL's and DINO's momentum reaches 1 at the end."""
    for epochs in (1, 3):
        run, _ = after_steps(replace(PLAIN, epochs=epochs), tmp_path)
        steps = epochs * STEPS_PER_EPOCH
        assert run.method.begun == [(0, steps), (1, steps), (2, steps)]
    assert [rising(0.9, step, 4) for step in (0, 2, 4)] == pytest.approx([0.9, 0.95, 1])


def test_each_parameters_gradient_is_clipped_by_itself(tmp_path):
    recipe = replace(PLAIN, clip_gradient=0.01, warmup_epochs=0)
    run, _ = after_steps(recipe, tmp_path, 1)
    norms = [parameter.grad.norm() for parameter in run.method.head.parameters()]
    assert all(norm <= 0.0101 for norm in norms) and max(norms) > 0.0099


def test_frozen_parameters_neither_move_nor_decay(tmp_path):
    """DINO's layer of classes in its first epoch; a gradient of zero would still let it decay."""
    dino = Dino(classes=24, hidden=16, bottleneck=8, frozen_epochs=1.0)
    recipe = replace(PLAIN, method=dino, views=Views((STRONG, STRONG)), weight_decay=0.5, warmup_epochs=0, decay="all")
    run = begin(recipe, RunFolder(tmp_path), torch.device("cpu"), Batches(recipe, made_up()))
    classes, first = run.method.student.head.directions, run.method.student.head.mlp[0].weight
    before = classes.clone(), first.clone()
    for step in range(STEPS_PER_EPOCH + 1):
        assert torch.equal(classes, before[0]), step
        descend(run, run.batches[step])
    assert not torch.equal(classes, before[0]) and not torch.equal(first, before[1])


def test_a_world_or_parts_that_do_not_divide_the_batch_are_refused(monkeypatch):
    with pytest.raises(
        UserError, match="batch_size 8 does not divide into 1 processes × 3 parts; take a multiple of 3"
    ):
        check(replace(PLAIN, accumulate=3))
    monkeypatch.setattr(dist, "world_size", lambda: 3)
    with pytest.raises(UserError, match="batch_size 8 does not divide into 3 processes"):
        check(PLAIN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": RandomInit()}, "RandomInit does not train; set epochs=0"),
        ({"method": Byol(), "batch_size": 1}, "batch_size 1 leaves 1 image per forward pass.*set batch_size=2"),
        ({"method": SimSiam(), "batch_size": 4, "accumulate": 4}, r"1 processes × 4 parts\).*set batch_size=8"),
        ({"method": Dino(), "batch_size": 4, "accumulate": 4}, r"1 processes × 4 parts\).*set batch_size=8"),
        ({"architecture": ViT("vit_tiny_patch8_48")}, r"views.augments.0.size=33: .*33x33 .*multiples of 8"),
    ],
)
def test_recipes_that_would_fail_in_their_first_step_are_refused(changes, words):
    with pytest.raises(UserError, match=words) as error:
        check(replace(PLAIN, **changes))
    assert "\n" not in str(error.value)


def test_synchronised_batchnorm_says_where_it_cannot_be():
    with pytest.raises(UserError, match="sync_bn needs GPUs"):
        synchronised(nn.BatchNorm2d(2), torch.device("cpu"))
    network = nn.Sequential(nn.BatchNorm2d(2))
    assert type(synchronised(network, torch.device("cuda"))[0]) is nn.SyncBatchNorm
    with pytest.raises(UserError, match="contradict each other"):
        replace(TINY_CGH, sync_bn=True, method=replace(TINY_CGH.method, bn_groups=2))


def test_labels_reach_the_method_in_the_order_of_the_images():
    labels = np.arange(43)
    pixels = np.broadcast_to(labels[:, None, None].astype(np.uint8) * 5, (43, 33, 33))
    batches = Batches(PLAIN, GreyImages("numbered", tuple(map(str, labels)), labels, "0" * 16, pixels))
    batch = batches[7]
    assert batch.labels.dtype == torch.int64 and len(batch.labels) == 8
    assert (batch.views[0][:, 0, 16, 16] * 255 / 5).round().long().tolist() == batch.labels.tolist()


def test_a_supervised_run_learns_its_labels(tmp_path, monkeypatch):
    labels = np.arange(32) % 2
    noise = np.random.default_rng(0).integers(0, 40, (32, 33, 33)).astype(np.uint8)
    shades = GreyImages(
        "shades/train", ("dark", "bright"), labels, "0" * 16, noise + 150 * labels[:, None, None].astype(np.uint8)
    )
    monkeypatch.setattr(data, "load", lambda *_, **__: shades)
    recipe = replace(
        TINY_CGH, method=Supervised(classes=2), views=replace(TINY_CGH.views, augments=TINY_CGH.views.augments[:1]),
        epochs=3, base_lr=1.0, warmup_epochs=0,
    )  # fmt: skip
    train(recipe, "tiny", tmp_path, watching=Watching(knn_epochs=3, label_free_epochs=3))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log if "loss" in line][-1] < 0.2
    assert [line["knn_top1"] for line in log if "knn_top1" in line] == [100]
    assert [line["rankme"] >= 1 for line in log if "rankme" in line] == [True]


class Broken(GreyImages):
    """Some files cannot be read."""

    def image(self, index):
        if index in BROKEN:
            raise UserError(f"cannot decode picture{index}.jpg; replace it")
        return super().image(index)


BROKEN = (3, 4, 11)


def broken():
    whole_set = made_up()
    return Broken(whole_set.name, whole_set.classes, whole_set.labels, whole_set.fingerprint, whole_set.pixels)


def test_unreadable_files_are_named_and_replaced_by_their_neighbours(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", lambda *_, **__: broken())
    train(replace(TINY_MOCO, epochs=2), "tiny", tmp_path)
    said = capfd.readouterr().err
    for index in BROKEN:
        assert said.count(f"picture{index}.jpg") == 1, "once, in two epochs"
    assert (tmp_path / "backbone.safetensors").exists()


def test_too_many_unreadable_files_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: broken())
    with pytest.raises(UserError, match=r"3 files cannot be read, the last: cannot decode picture\d+.jpg"):
        train(replace(TINY_MOCO, corrupt_limit=1), "tiny", tmp_path)


def test_watching_changes_nothing_and_leaves_snapshots_states_and_accuracies(tmp_path, whole):
    train(TINY_CGH, "tiny", tmp_path, watching=Watching(knn_epochs=2, snapshot_epochs=1, keep=2))
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    watched = [json.loads(line) for line in lines if "knn_top1" in line]
    assert [(line["step"], line["knn_top1"]) for line in watched] == [(2 * STEPS_PER_EPOCH, 100)], (
        "one class: all right"
    )
    log.write_text("".join(line for line in lines if "knn_top1" not in line))
    assert_same_run(whole, tmp_path)

    assert sorted(p.name for p in tmp_path.glob("checkpoint-*.pt")) == [
        "checkpoint-00000010.pt",
        "checkpoint-00000015.pt",
    ]
    assert torch.load(tmp_path / "checkpoint-00000010.pt", weights_only=True)["step"] == 10
    snapshots = [load_canonical(path) for path in sorted((tmp_path / "snapshots").iterdir())]
    assert [s.name for s in snapshots] == ["tiny, epoch 1", "tiny, epoch 2", "tiny, epoch 3"]
    assert snapshots[-1].id == load_canonical(tmp_path / "backbone.safetensors").id != snapshots[0].id
    assert len(snapshots[0].origin.recipe_fingerprint) == 16
    train(replace(TINY_CGH, method=RandomInit(), epochs=0), "none", tmp_path, resume=False)
    assert not list(tmp_path.glob("checkpoint*")) and not list((tmp_path / "snapshots").iterdir())


def test_quality_without_labels_is_that_of_each_epoch_also_after_an_interruption(tmp_path, whole, monkeypatch):
    often = Watching(label_free_epochs=1, snapshot_epochs=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_step(patch, STEPS_PER_EPOCH + 2)
        train(TINY_CGH, "tiny", tmp_path, watching=often)
    train(TINY_CGH, "tiny", tmp_path, watching=often)
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    logged = [json.loads(line) for line in lines if "rankme" in line]
    assert [(line["step"], line["epoch"]) for line in logged] == [(n * STEPS_PER_EPOCH, n) for n in (1, 2, 3)]
    for line, path in zip(logged, sorted((tmp_path / "snapshots").iterdir()), strict=True):
        found = label_free(load_canonical(path).backbone(), TINY_CGH, made_up())
        assert {name: line[name] for name in found} == pytest.approx(found, rel=1e-6)
    log.write_text("".join(line for line in lines if "rankme" not in line))
    assert_same_run(whole, tmp_path)


def test_a_run_recorded_before_fields_were_added_goes_on(tmp_path):
    """Old records have none of the later fields."""
    recipe = replace(find("cgh_r18_animals"), method=RandomInit(), epochs=0, batch_size=8)
    train(recipe, "old", tmp_path)
    recorded = json.loads((tmp_path / "recipe.json").read_text())["recipe"]
    assert not {"decay", "accumulate", "sync_bn", "solarize"} & recorded.keys()
    assert train(recipe, "old", tmp_path).exists()
    with pytest.raises(UserError, match=r"recipe\.decay: None there, all here"):
        train(replace(recipe, decay="all"), "old", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(6))
def test_killed_at_a_random_moment_it_goes_on_bit_for_bit(tmp_path, whole, attempt):
    moment = random.Random(attempt).uniform(0.5, 12)
    process = subprocess.Popen([sys.executable, SCRIPT, tmp_path], env=one_thread())
    time.sleep(moment)
    process.kill()
    process.wait()
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, env=one_thread())
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_a_compiled_run_is_close(tmp_path, whole):
    train(replace(TINY_CGH, compile=True, epochs=1), "tiny", tmp_path)
    first = [json.loads((out / "log.jsonl").read_text().splitlines()[0])["loss"] for out in (tmp_path, whole)]
    assert first[0] == pytest.approx(first[1], rel=1e-3)
