"""Pretraining as a whole: what a run leaves, resumption bit for bit, interruption, several processes, bad input."""

import json
import math
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import faulty
import pretrain_process
import pytest
import ranks
import safetensors.torch
import torch
from pretrain_process import STEPS_PER_EPOCH, TINY_CGH, TINY_MOCO, made_up
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cgh_bench import data
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.checkpoint import load_canonical, random_checkpoint
from cgh_bench.core.config import override
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.batches import Batches
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.methods.random_init import RandomInit
from cgh_bench.pretrain.train import train

SCRIPT = Path(__file__).with_name("pretrain_process.py")
STEPS = 3 * STEPS_PER_EPOCH


@pytest.fixture(autouse=True)
def _made_up_data(monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())


def one_thread():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def lines(out):
    """The log without what depends on the clock."""
    timed = ("images_per_second", "seconds")
    read = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in read]


def leaves(tree, path=""):
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in leaves(value, f"{path}.{key}").items()}
    if isinstance(tree, list):
        return leaves(dict(enumerate(tree)), path)
    return {path: tree}


def assert_same_run(one, two):
    assert (one / "recipe.json").read_text() == (two / "recipe.json").read_text()
    assert lines(one) == lines(two)
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (one, two)]
    first, second = (leaves({k: v for k, v in state.items() if k != "seconds"}) for state in states)
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name
    backbones = [load_canonical(out / "backbone.safetensors") for out in (one, two)]
    assert backbones[0].id == backbones[1].id and backbones[0].origin == backbones[1].origin


def interrupt_in_step(monkeypatch, number, kind=signal.SIGINT):
    """Let the signal come while step `number` of this session is computed."""
    original, calls = Cgh.forward, []

    def forward(self, views, epoch, labels):
        calls.append(epoch)
        if len(calls) == number:
            signal.raise_signal(kind)
        return original(self, views, epoch, labels)

    monkeypatch.setattr(Cgh, "forward", forward)


def test_what_a_run_leaves(whole):
    checkpoint = load_canonical(whole / "backbone.safetensors")
    assert (checkpoint.name, checkpoint.origin.source, checkpoint.origin.recipe) == ("tiny", "pretrain", "tiny")
    assert checkpoint.origin.seed == 0 and checkpoint.architecture == TINY_CGH.architecture
    state = torch.load(whole / "checkpoint.pt", weights_only=True)["method"]
    trained = {k: v for k, v in state.items() if k.startswith("student.backbone.")}
    assert len(trained) == len(checkpoint.weights)
    for key, value in checkpoint.weights.items():
        assert torch.equal(value, trained[f"student.backbone.{key}"]), (
            "the student's backbone is exported, not the teacher's"
        )

    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 5, 10, 15]
    for line in log:
        terms = [value for name, value in line.items() if name.startswith(("infonce_", "relation_"))]
        assert line["loss"] == pytest.approx(sum(terms)) and line["images_per_second"] > 0
        assert line["epoch"] == line["step"] / STEPS_PER_EPOCH
    assert log[0]["lr"] == 0 and log[-1]["lr"] < 0.01 * 0.5 * 8 / 256 * 5
    assert set(log[0]) - set(log[-1]) == {"infonce_global", "infonce_hyper"}, "gone after the hand-over"
    events = EventAccumulator(str(whole)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 5, 10, 15]
    record = json.loads((whole / "recipe.json").read_text())
    assert record["name"] == "tiny" and record["recipe"]["method"]["teacher_global_temperature"] == 0.04


@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 10, 14))])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch, whole, step, capfd):
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, step, {7: signal.SIGTERM, 10: signal.SIGHUP}.get(step, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(TINY_CGH, "tiny", tmp_path)
    assert f"stopped at step {step} of {STEPS}, saved; rerun the same command to resume" in capfd.readouterr().err
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == step
    torch.manual_seed(12345)  # whatever else the process did must not matter
    train(TINY_CGH, "tiny", tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_run_that_waits_for_a_batch_is_stopped_and_saved(tmp_path, monkeypatch, whole, capfd):
    """The files are on a share that has gone away, or a loader cannot hand over what it has read."""

    def stuck(self, step):
        if step == 6:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            time.sleep(30)
        return read(self, step)

    read = Batches.__getitem__
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__getitem__", stuck)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            train(TINY_CGH, "tiny", tmp_path)
        assert time.monotonic() - started < 25
    assert "stopped at step 6 of 15, saved" in capfd.readouterr().err
    train(TINY_CGH, "tiny", tmp_path)
    assert_same_run(whole, tmp_path)


def test_adamw_goes_on_bit_for_bit_too(tmp_path, monkeypatch):
    recipe = replace(TINY_CGH, epochs=1, optimizer="adamw", base_lr=0.01)
    train(recipe, "tiny", tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "tiny", tmp_path / "parts")
    train(recipe, "tiny", tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_the_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(replace(TINY_CGH, method=RandomInit(), epochs=0), "none", tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_process_that_is_stopped_or_killed_goes_on_bit_for_bit(tmp_path, whole, kind):
    process = faulty.start(partial(pretrain_process.main, pace="slowly"), tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.pt").exists():  # the end of the first epoch
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, kind)
    process.join(60)
    if kind == signal.SIGINT:
        said = (tmp_path / "said").read_text()
        assert process.exitcode == 130, said
        assert "saved; rerun the same command to resume" in said and "Traceback" not in said
    assert not (tmp_path / "backbone.safetensors").exists()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 12, "torn')  # what a crash in the middle of a line leaves
    train(TINY_CGH, "tiny", tmp_path)
    assert_same_run(whole, tmp_path)


def test_a_finished_run_is_returned_at_once(whole, monkeypatch):
    monkeypatch.setattr(Cgh, "build", None)  # building anything would fail
    before = (whole / "checkpoint.pt").stat().st_mtime_ns
    assert train(TINY_CGH, "tiny", whole) == whole / "backbone.safetensors"
    assert (whole / "checkpoint.pt").stat().st_mtime_ns == before


def test_another_recipe_in_the_folder_is_refused_with_the_fields(whole):
    other = replace(TINY_CGH, seed=3, method=replace(TINY_CGH.method, momentum=0.5))
    with pytest.raises(UserError) as error:
        train(other, "tiny with seed=3, method.momentum=0.5", whole)
    assert "holds another run (recipe." in str(error.value), "not the name, which says the same at length"
    assert "recipe.method.momentum: 0.9 there, 0.5 here" in str(error.value)
    assert "recipe.seed: 0 there, 3 here" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"\(name: tiny there, other here\)"):
        train(TINY_CGH, "other", whole)
    with pytest.raises(UserError, match=r"recipe\.method\.type: Cgh there, MocoV2 here"):
        train(TINY_MOCO, "tiny", whole)


def test_a_refused_recipe_does_not_keep_its_folder(tmp_path):
    with pytest.raises(UserError, match="larger than the queue of 28"):
        train(replace(TINY_CGH, batch_size=32), "tiny", tmp_path)
    train(replace(TINY_CGH, method=RandomInit(), epochs=0), "mended", tmp_path)
    assert json.loads((tmp_path / "recipe.json").read_text())["name"] == "mended"


def test_without_resume_a_run_starts_afresh(tmp_path):
    quick = replace(TINY_CGH, epochs=1)
    train(replace(quick, seed=5), "tiny", tmp_path)
    train(quick, "tiny", tmp_path, resume=False)
    assert json.loads((tmp_path / "recipe.json").read_text())["recipe"]["seed"] == 0
    assert [line["step"] for line in lines(tmp_path)] == [1, 5]


def test_seeds_differ_and_a_seed_repeats(tmp_path):
    quick = replace(TINY_MOCO, epochs=1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(quick, seed=seed), "tiny", tmp_path / name)
    a, b, c = (lines(tmp_path / name) for name in "abc")
    assert a == b and a[-1]["loss"] != c[-1]["loss"]


def test_random_init_is_the_start_of_every_other_recipe(tmp_path):
    path = train(
        replace(TINY_CGH, architecture=ResNet("resnet18"), method=RandomInit(), epochs=0, seed=2),
        "random",
        tmp_path / "random",
    )
    control = load_canonical(path)
    reference = random_checkpoint("resnet18", seed=2)
    assert all(torch.equal(control.weights[key], value) for key, value in reference.weights.items())
    for recipe in (TINY_CGH, TINY_MOCO):
        torch.manual_seed(2)
        start = recipe.method.build(control.architecture).backbone.state_dict()
        assert all(torch.equal(control.weights[key], value) for key, value in start.items())


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    original = Cgh.forward

    def forward(self, views, epoch, labels):
        terms = original(self, views, epoch, labels)
        return {**terms, "infonce_hyper": terms["infonce_hyper"] * float("nan")} if epoch > 1.1 else terms

    monkeypatch.setattr(Cgh, "forward", forward)
    with pytest.raises(UserError, match=r"not finite at step 7 \(infonce_global [\d.]+, infonce_hyper nan"):
        train(TINY_CGH, "tiny", tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    assert all(torch.isfinite(v).all() for v in leaves(state).values() if isinstance(v, torch.Tensor))


def test_a_state_with_other_values_is_one_line(tmp_path, whole):
    """Momenta of any shape are taken by `load_state_dict`, and would fail in the first step."""
    shutil.copy(whole / "recipe.json", tmp_path)
    for change in ("no optimizer", "NaN", "no values", "another queue", "another momentum"):
        state = torch.load(whole / "checkpoint.pt", weights_only=True)
        weights, momenta = state["method"], state["optimizer"]["state"][0]
        name = next(name for name in weights if name.endswith("conv1.weight"))
        if change == "no optimizer":
            del state["optimizer"]
        elif change == "another queue":
            queue = next(name for name in weights if "queue" in name and weights[name].ndim == 2)
            weights[queue] = weights[queue][:, :3]
        elif change == "another momentum":
            momenta["momentum_buffer"] = momenta["momentum_buffer"][:3]
        else:
            weights[name] = weights[name] * math.nan if change == "NaN" else weights[name].to("meta")
        torch.save(state, tmp_path / "checkpoint.pt")
        with pytest.raises(UserError, match=r"checkpoint\.pt is damaged or .*; copy a checkpoint-STEP\.pt over it"):
            train(TINY_CGH, "tiny", tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    original, calls = torch.save, []

    def save(state, file):
        calls.append(state["step"])
        if len(calls) == 2:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        original(state, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"No space left on device.*previous checkpoint is intact"):
        train(TINY_MOCO, "tiny", tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"batch_size": 44, "method": replace(TINY_CGH.method, queue_length=64)},
            "larger than made-up/train with 43 images; set batch_size=43",
        ),
        ({"batch_size": 32}, "larger than the queue of 28"),
        ({"views": replace(TINY_CGH.views, augments=TINY_CGH.views.augments[:1])}, "needs 2 views"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        train(replace(TINY_CGH, **changes), "tiny", tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        *("seed=-1", "epochs=-1", "batch_size=0", "base_lr=-0.1", "weight_decay=-1", "momentum=-0.1", "accumulate=0"),
        *("clip_gradient=-1", "corrupt_limit=-1", "method.hidden=0", "method.dim_global=-3", "method.bn_groups=0"),
    ],
)
def test_numbers_that_are_too_small_are_refused(setting):
    name, value = setting.removeprefix("method.").split("=")
    with pytest.raises(UserError, match=rf"^{setting}: {name}={value}(\.0)? must be at least [01]( and below 1)?$"):
        override(TINY_CGH, [setting])


def test_every_width_of_every_method_is_at_least_one():
    widths = ("dim", "hidden", "length", "classes", "bottleneck", "groups")
    looked_at = set()
    for recipe in registered("cgh_bench.pretrain.methods", "RECIPES").values():
        for field in vars(recipe.method):
            if any(word in field for word in widths):
                looked_at.add(field)
                with pytest.raises(UserError, match=f"{field}=0 must be at least 1"):
                    replace(recipe.method, **{field: 0})
    assert len(looked_at) >= 8


def test_momentum_of_one_is_refused():
    with pytest.raises(UserError, match="momentum=1.0 must be at least 0 and below 1"):
        replace(TINY_CGH, momentum=1.0)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot lock and write"):
        train(TINY_CGH, "tiny", tmp_path / "file" / "run")


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_low_precision_stays_close(tmp_path, whole, precision):
    train(replace(TINY_CGH, precision=precision, epochs=1), "tiny", tmp_path)
    first = lines(whole)[0]["loss"]
    assert lines(tmp_path)[0]["loss"] == pytest.approx(first, rel=0.02) and lines(tmp_path)[0]["loss"] != first


def test_two_processes_equal_one(tmp_path):
    """BN groups are parts of the whole batch, one for each of the two: the same blocks, shuffles and means.

    At a low rate: a high one multiplies the rounding of another order of sums in each step.
    """
    split = replace(TINY_CGH, method=replace(TINY_CGH.method, bn_groups=2), epochs=1, base_lr=0.001)
    train(split, "tiny", tmp_path / "one")
    ranks.run(pretrain_process.main, str(tmp_path / "two"), "2", "1", "0.001")
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-4), a["step"]
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("one", "two")]
    methods = [state["method"] for state in states]
    assert methods[0]["queues._extra_state"] == methods[1]["queues._extra_state"]
    for name in ("queues.global_rows", "queues.hyper_rows"):
        torch.testing.assert_close(methods[0][name], methods[1][name], rtol=0, atol=1e-3)
    sums_of_gradients = [[entry["momentum_buffer"] for entry in s["optimizer"]["state"].values()] for s in states]
    for mine, its in zip(*sums_of_gradients, strict=True):
        assert (mine - its).norm() < 0.02 * mine.norm()


def test_unknown_recipes_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean cgh_r18_animals"):
        recipes.find("cgh_r18_animal")
    for name in ("cgh_r18_animals", "moco_v2_r18_animals", "random_r18_animals", "cgh_r50_in1k_200ep"):
        assert recipes.find(name).seed == 0


def test_the_backbone_is_a_plain_safetensors_file(whole):
    assert "layer1.0.conv1.weight" in safetensors.torch.load_file(whole / "backbone.safetensors")
