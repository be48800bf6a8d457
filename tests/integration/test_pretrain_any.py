"""Pretraining of backbones of any family, on images in any layout."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image
from pretrain_process import STRONG, TINY_CGH, WEAK, made_up

from cgh_bench import backbones, cli, data
from cgh_bench.checkpoint import load_canonical
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.folder import RunFolder
from cgh_bench.pretrain.methods.byol import Byol
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.methods.dino import Dino
from cgh_bench.pretrain.methods.moco_v2 import MocoV2
from cgh_bench.pretrain.methods.simsiam import SimSiam
from cgh_bench.pretrain.methods.supervised import Supervised
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.train import check, train, training_images
from cgh_bench.pretrain.views import Views
from cgh_bench.pretrain.watching import Watching

QUEUE = {"hidden": 32, "queue_length": 28, "momentum": 0.9, "bn_groups": 1}
METHODS = {
    "moco_v2": MocoV2(dim=16, **QUEUE),
    "simsiam": SimSiam(dim=32, predictor_hidden=16),
    "byol": Byol(dim=16, hidden=32),
    "dino": Dino(classes=24, hidden=32, bottleneck=16),
    "supervised": Supervised(classes=4),
}
STAGES = {"vit_tiny_patch16_32": ("block2", "block12"), "test_convnext": None, "test_efficientnet": None}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "test_efficientnet" else name for name in STAGES]
)
def test_cgh_trains_any_backbone_and_resumes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())
    architecture = backbones.named(name)
    stages = STAGES[name] or tuple(architecture.skeleton.stages)[-2:]
    method = Cgh(dim_global=16, dim_hyper=16, stages=stages, **QUEUE)
    size = 32 if name.startswith("vit") else 64  # so that the last stage has 2 x 2 positions
    views = Views(tuple(replace(view, size=size) for view in (WEAK, STRONG)))
    recipe = replace(TINY_CGH, method=method, architecture=architecture, views=views, optimizer="adamw", base_lr=0.01)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    exported = load_canonical(train(replace(recipe, epochs=2), name, whole, watching=Watching(keep=2)))
    assert exported.architecture == architecture and exported.backbone().dim == architecture.skeleton.dim
    torch.manual_seed(0)
    start = architecture.build().state_dict()
    assert exported.weights.keys() == start.keys()
    assert any(not torch.equal(start[key], value) for key, value in exported.weights.items())

    parts.mkdir()
    (parts / "recipe.json").write_text((whole / "recipe.json").read_text())
    (parts / "checkpoint.pt").write_bytes(sorted(whole.glob("checkpoint-*.pt"))[0].read_bytes())
    assert load_canonical(train(replace(recipe, epochs=2), name, parts)).id == exported.id
    state = RunFolder(parts).load()["method"]
    assert all(torch.equal(state[f"student.backbone.{key}"], value) for key, value in exported.weights.items())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_takes_a_transformer(tmp_path, method, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())
    views = Views((replace(STRONG, size=32),) * method.number_of_views)
    architecture = backbones.named("test_vit")
    recipe = replace(TINY_CGH, method=method, architecture=architecture, views=views, epochs=1, base_lr=0.01)
    train(recipe, "tiny", tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 5 and abs(log[-1]["loss"]) < 100


def test_stages_of_another_family_are_refused():
    recipe = replace(find("cgh_vit_tiny_animals"), method=find("cgh_r18_animals").method)
    with pytest.raises(UserError, match=r"unknown stage of vit_tiny_patch\d+_48 'layer3'; known: block1"):
        check(recipe)


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (shade, shade, 0)).save(path)


LAYOUTS = {
    "flat": ["{i}.jpg"],
    "nested": ["2024/may/{i}.png", "2025/{i}.JPG"],
    "train only": ["train/cat/{i}.jpg", "train/dog/{i}.jpg"],
    "train, flat": ["train/{i}.jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_folders_of_any_layout_are_trained_on_without_labels(tmp_path, layout):
    photos = tmp_path / "photos"
    for pattern in layout:
        for i in range(9):
            picture(photos / pattern.format(i=i), 20 * i)
    (photos / "notes.txt").write_text("not an image")
    recipe = replace(TINY_CGH, data=str(photos), epochs=1, base_lr=0.01)
    assert len(training_images(recipe)) == 9 * len(layout)
    assert train(recipe, "tiny", tmp_path / "run").exists()
    with pytest.raises(UserError, match="photos"):  # kNN needs labels, and val images
        train(recipe, "tiny", tmp_path / "other", watching=Watching(knn_epochs=1))
    if not layout[0].startswith("train/c"):
        with pytest.raises(UserError, match="photos"):
            train(replace(recipe, method=Supervised(classes=2), views=Views((WEAK,))), "tiny", tmp_path / "labelled")


def test_a_labelled_folder_is_the_same_with_and_without_labels(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            picture(tmp_path / split / name / "1.jpg", 9)
    recipe = replace(TINY_CGH, data=str(tmp_path))
    assert training_images(recipe).fingerprint == data.load(str(tmp_path), "train").fingerprint
    assert len(training_images(recipe)) == 2


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images in"):
        training_images(replace(TINY_CGH, data=str(tmp_path)))
    with pytest.raises(UserError, match="nowhere"):
        training_images(replace(TINY_CGH, data="nowhere"))


def command(monkeypatch, *words):
    """The exit code of `cgh-bench WORDS`."""
    monkeypatch.setattr(sys, "argv", ["cgh-bench", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_a_dry_run_counts_the_images(tmp_path, monkeypatch, capsys):
    for i in range(5):
        picture(tmp_path / f"{i}.jpg", i)
    settings = [f"data={tmp_path}", "batch_size=8", "method.bn_groups=1"]
    words = (word for each in settings for word in ("--set", each))
    assert command(monkeypatch, "pretrain", "cgh_r18_animals", "--dry-run", *words) == 2
    assert f"batch_size 8 is larger than {tmp_path.name} with 5 images" in capsys.readouterr().err


def test_the_command_trains_another_backbone(monkeypatch, capsys):
    words = ["pretrain", "moco_v2_r18_animals", "--backbone", "vit_small_patch16_48", "--dry-run"]
    assert command(monkeypatch, *words) == 0
    assert '"name": "vit_small_patch16_48"' in capsys.readouterr().out
