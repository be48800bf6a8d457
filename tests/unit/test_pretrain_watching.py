"""Watching: the bounded kNN against counting by hand, trackers, and that none of it touches the network."""

import errno
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages
from cgh_bench.networks.resnet import ResNetBackbone
from cgh_bench.pretrain import watching
from cgh_bench.pretrain.folder import Log, RunFolder
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.watching import Watching, knn_top1, label_free


def shades(n, seed):
    """Class 0 is dark, class 1 bright."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(seed).integers(0, 30, (n, 12, 12))
    return GreyImages(
        "shades", ("dark", "bright"), labels, "0" * 16, (labels[:, None, None] * 200 + noise).astype(np.uint8)
    )


class Brightness(ResNetBackbone):
    """The feature of an image is its mean and one minus that."""

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, 1 - mean], dim=1)


def test_the_knn_sees_what_is_there(monkeypatch):
    recipe = replace(find("cgh_r18_animals"), views=find("moco_v2_r18_animals").views)
    backbone = Brightness(ResNet("resnet18"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    assert knn_top1(backbone, recipe, shades(60, 0), shades(20, 1)) == 100
    swapped = replace(shades(20, 1), labels=1 - shades(20, 1).labels)
    assert knn_top1(backbone, recipe, shades(60, 0), swapped) == 0
    assert backbone.training and all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1)), "the run's random numbers are left alone"


def test_quality_without_labels_is_that_of_the_task_and_touches_nothing():
    recipe, images = find("cgh_r18_animals"), shades(60, 0)
    backbone = Brightness(ResNet("resnet18"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    found = label_free(backbone, recipe, images)
    unlabelled = label_free(backbone, recipe, replace(images, labels=np.zeros(60, np.int64)))
    assert found == unlabelled
    features, _ = watching._features(backbone, recipe, images, 60)
    shares = np.linalg.svd(features, compute_uv=False)
    shares = shares / shares.sum()
    assert found["rankme"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert found["uniformity"] <= 0
    assert backbone.training and all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_watching_costs_no_more_for_more_images(monkeypatch):
    monkeypatch.setattr(watching, "BANK", 16)
    monkeypatch.setattr(watching, "QUERIES", 8)
    seen = []

    class Counting(Brightness):
        def forward(self, images):
            seen.append(len(images))
            return super().forward(images)

    knn_top1(Counting(ResNet("resnet18")), find("cgh_r18_animals"), shades(500, 0), shades(300, 1))
    assert sum(seen) == 16 + 8
    label_free(Counting(ResNet("resnet18")), find("cgh_r18_animals"), shades(500, 0))
    assert sum(seen) == 16 + 8 + 16


def test_several_labels_an_image_are_refused():
    multi = replace(shades(6, 0), labels=np.ones((6, 2), np.int64))
    with pytest.raises(UserError, match="leave --knn-epochs out"):
        knn_top1(Brightness(ResNet("resnet18")), find("cgh_r18_animals"), multi, multi)


class Fake(ModuleType):
    """Both packages, as far as they are used."""

    def __init__(self, name):
        super().__init__(name)
        self.calls, self.info, self.run_id = [], self, "given by the server"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


@pytest.fixture
def images():
    return shades(6, 0)


@pytest.mark.parametrize(
    ("name", "start", "written", "id_of"),
    [("wandb", "init", "log", "id"), ("mlflow", "start_run", "log_metrics", "run_id")],
)
def test_trackers_get_every_line_and_continue_one_run_per_folder(
    tmp_path, monkeypatch, images, name, start, written, id_of
):
    module = Fake(name)
    monkeypatch.setitem(sys.modules, name, module)
    recipe = find("cgh_r18_animals")
    for place in ("one/cgh/seed0", "two/cgh/seed0", "one/cgh/seed0", "moved/seed0", "moved/seed0"):
        if place == "moved/seed0" and not (tmp_path / place).exists():
            (tmp_path / "one/cgh").rename(tmp_path / "moved")
        folder = RunFolder(tmp_path / place)
        folder.claim(recipe, "cgh_r18_animals", images, resume=True)
        folder.save({"step": 5})
        log = Log(folder, 0, (name,))
        log.write({"step": 5, "loss": 1.5})
        log.write({"step": 5, "knn_top1": 60.0})  # no later step: W&B would drop it
        log.close()
    assert module.calls[-1][0] in ("finish", "end_run")
    lines = [(arguments[0], options) for call, arguments, options in module.calls if call == written]
    steps = {} if name == "wandb" else {"step": 5}
    assert lines[:2] == [({"step": 5, "loss": 1.5}, steps), ({"step": 5, "knn_top1": 60.0}, steps)]
    ids = [options[id_of] for call, _, options in module.calls if call == start]
    if name == "wandb":
        assert ids[0] == ids[2] == ids[3] == ids[4] != ids[1]
        assert all(options["config"]["epochs"] == recipe.epochs for call, _, options in module.calls if call == start)
    else:
        assert ids == [None, None, *["given by the server"] * 3]
        assert [call for call, *_ in module.calls].count("log_params") == 2
    RunFolder(tmp_path / "moved/seed0").claim(recipe, "cgh_r18_animals", images, resume=False)
    assert not (tmp_path / "moved/seed0/tracking.json").exists(), "another run"


def test_a_run_is_the_same_however_its_settings_are_said(tmp_path, images):
    folder, recipe = RunFolder(tmp_path), find("cgh_r18_animals")
    folder.claim(replace(recipe, data="./photos"), "cgh_r18_animals with data=./photos, epochs=8", images, True)
    folder.save({"step": 5})
    elsewhere = replace(recipe, data="/mnt/photos")
    folder.claim(elsewhere, "cgh_r18_animals with epochs=8, data=/mnt/photos", images, True)
    with pytest.raises(UserError, match="data_fingerprint"):
        folder.claim(elsewhere, "cgh_r18_animals with data=/mnt/photos", replace(images, content="1" * 16), True)
    for damaged in ("", "5", "{}", '{"name": 1, "recipe": 2}'):
        (tmp_path / "recipe.json").write_text(damaged)
        with pytest.raises(UserError, match=r"recipe\.json is damaged"):
            folder.claim(recipe, "cgh_r18_animals", images, True)


def test_states_are_kept_on_disks_without_hard_links(tmp_path, monkeypatch):
    def refused(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.save({"step": step}, keep=2)
    kept = {path.name: torch.load(path, weights_only=True)["step"] for path in tmp_path.glob("*.pt")}
    assert kept == {"checkpoint.pt": 3, "checkpoint-00000002.pt": 2, "checkpoint-00000003.pt": 3}


def test_curves_of_a_run_that_was_killed_before_it_saved_are_not_shown_twice(tmp_path):
    for loss in (9.0, 2.0):
        time.sleep(1 - time.time() % 1)  # files of events are named by the second
        log = Log(RunFolder(tmp_path), 0)
        for step in (1, 5):
            log.write({"step": step, "loss": loss})
        log.close()
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(1, 2.0), (5, 2.0)]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"nonsense", None])
def test_a_state_that_is_damaged_is_told(tmp_path, content):
    folder = RunFolder(tmp_path)
    assert folder.load() == {}
    torch.save({"model": 1}, folder.state)
    if content is not None:
        folder.state.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged.*remove it to start again") as error:
        folder.load()
    assert "\n" not in str(error.value)


def test_a_tracker_that_is_not_installed_or_unknown_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb, or leave --track wandb out"):
        Log(RunFolder(tmp_path), 0, ("wandb",))
    with pytest.raises(UserError, match="did you mean wandb"):
        Watching(trackers=("wand",))
    with pytest.raises(UserError, match="keep at least 1"):
        Watching(keep=0)
