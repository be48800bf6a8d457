"""Small real work, each kind in a process of its own that can be killed, starved and robbed."""

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import torch
from PIL import Image
from pretrain_process import TINY_MOCO, made_up

import cgh_bench


def modules_in(package: str) -> list[str]:
    """The modules that our `package` registers what it holds from: all are imported to find one."""
    folder = Path(cgh_bench.__path__[0], package)
    return [f"{package}.{each.name}" for each in iter_modules([str(folder)])]


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("cgh_bench.cli.evaluating", "cgh_bench.evaluation", "cgh_bench.reading.loading", "cgh_bench.pretrain.train"),
        *(f"cgh_bench.{each}" for package in ("backbones", "data", "tasks") for each in modules_in(package)),
        *("sklearn.linear_model", "timm", "faiss", "torchvision.transforms.v2"),
    ]
)
EVALUATION = ("transform.resize=32", "transform.crop=32", "k=3", "k_grid=1,3")


# work


def pretrain(folder: Path) -> None:
    """Fifteen steps; a state is saved after each fifth."""
    from cgh_bench import data
    from cgh_bench.pretrain.train import train

    data.load = lambda *_, **__: made_up()
    train(replace(TINY_MOCO, epochs=3), "tiny", folder / "run")


def pretrain_files(folder: Path) -> None:
    """Fifteen steps on a folder of images, which loader processes decode; a state is saved after each third."""
    from cgh_bench.pretrain.train import train

    train(replace(TINY_MOCO, epochs=5, batch_size=4, data=str(folder / "images")), "tiny", folder / "run")


def evaluate(folder: Path) -> None:
    """Features of a folder of images, saved after each second image, and kNN."""
    from cgh_bench.frozen import extraction

    extraction.BATCH_SIZE, extraction.BATCHES_PER_SAVE = 2, 1
    command("eval", "knn", "--ckpt", "random:resnet18", "--data", str(folder / "images"), *_settings(), work=folder)


def evaluate_another(folder: Path) -> None:
    """The same of another backbone."""
    command("eval", "knn", "--ckpt", "random:resnet34", "--data", str(folder / "images"), *_settings(), work=folder)


def probe(folder: Path) -> None:
    """The same features, and the linear probe."""
    settings = _settings("transform.resize=32", "transform.crop=32", "held_out=0.5")
    command("eval", "linear", "--ckpt", "random:resnet18", "--data", str(folder / "images"), *settings, work=folder)


def report(folder: Path) -> None:
    """The page of a table, with what `evaluate` has measured."""
    command("report", "animals", work=folder)


def convert(folder: Path) -> None:
    """A backbone for another library, with its certificate."""
    from cgh_bench import checkpoint
    from cgh_bench.converters.convert import convert as converted

    converted(checkpoint.random_checkpoint("resnet18"), "torchvision", folder / "out.pth", verify=False)


def save(folder: Path) -> None:
    """A backbone in our own format."""
    from cgh_bench import checkpoint

    checkpoint.save(checkpoint.random_checkpoint("resnet18"), folder / "out.safetensors")


def export(folder: Path) -> None:
    """Features as files."""
    from cgh_bench.cli import errors_in_one_line
    from cgh_bench.cli.features import features

    words = ["random:resnet18", "--data", str(folder / "images"), "--resize", "32", "--crop", "32"]
    with errors_in_one_line():
        features.main(["export", *words, "-o", str(folder / "features.npz")], standalone_mode=False)


def watch(folder: Path) -> None:
    """Two checkpoints of a folder, as `evaluate` measures one."""
    from cgh_bench.checkpoint import random_checkpoint, save
    from cgh_bench.frozen import extraction

    extraction.BATCH_SIZE, extraction.BATCHES_PER_SAVE = 2, 1
    for seed in (0, 1):
        path = folder / f"run/{seed}.safetensors"
        if not path.exists():
            save(random_checkpoint("resnet18", seed), path)
    words = ["--task", "knn", "--data", str(folder / "images"), "--once"]
    command("watch", str(folder / "run"), *words, work=folder)


def bundle(folder: Path) -> None:
    """What `evaluate` has measured, as one file."""
    command("results", "bundle", "-o", str(folder / "out.zip"), work=folder)


def site(folder: Path) -> None:
    """All pages of what `evaluate` has measured."""
    command("report", "-o", str(folder / "site"), work=folder)


def compare(folder: Path) -> None:
    """The images that tell the backbones of `evaluate` and `evaluate_another` apart, as a table and as pictures."""
    command("compare", "random:resnet18", "random:resnet34", "-o", str(folder / "flips"), work=folder)


def explain(folder: Path) -> None:
    """Evaluations of the first result under other protocols."""
    command("explain", "1", "--published", "50", work=folder)


def check(folder: Path) -> None:
    """Every file of a dataset."""
    command("data", "check", str(folder / "images"), work=folder)


def merge(folder: Path) -> None:
    """A hundred results of another store, ten times."""
    from cgh_bench import results

    line = {"task": "knn", "protocol": "knn@1", "metrics": {"top1": 1.0}, "checkpoint": "a", "checkpoint_name": "a"}
    more = {"origin": {}, "data": "d", "config": {}}
    for part in range(10):
        records = [results.Result(**line, **more, seed=100 * part + number) for number in range(100)]
        other = folder / f"other{part}/results.jsonl"
        other.unlink(missing_ok=True)
        results.append(other, *records)
        results.merge([other], folder / "work/results.jsonl")


def transfer(folder: Path) -> None:
    """Six steps of a stand-in for a framework, which saves its state after each and goes on from it."""
    from cgh_bench.checkpoint import random_checkpoint
    from cgh_bench.converters import base as converters
    from cgh_bench.data.dense import Located
    from cgh_bench.foreign import frameworks, process

    class StandIn(frameworks.Framework):
        def command(self, module: str) -> list[str]:
            return [sys.executable, str(script)]

    real = frameworks.FRAMEWORKS["mmdet"]
    script = folder / "train.py"
    backbone = random_checkpoint("resnet18")
    script.write_text(STAND_IN.replace("GIVEN", str(real.tensors_given(backbone))), encoding="utf-8")
    frameworks.FRAMEWORKS["mmdet"] = StandIn(**{**vars(real), "modules": ()})
    job = process.Job(framework="mmdet", protocol="animals_det", seed=0, identity="x")
    converter = converters.find(real.converter)
    data = Located(folder, "", "")
    metrics = process.run(job, backbone, lambda path: converter.write(backbone, path), data, folder / "transfer")
    (folder / "transfer.json").write_text(json.dumps(metrics), encoding="utf-8")


STAND_IN = """
import json, pathlib, sys, time
given = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
work = pathlib.Path(given["work"])
state = work / "state.pth"
done, total = json.loads(state.read_text()) if state.exists() else (0, 0)
mean_std = [v for name in ("mean", "std") for v in json.loads(given[f"model.data_preprocessor.{name}"])]
in_force = {"channel_order": "RGB", "mean_std": mean_std, "stride_in_1x1": False}
loaded = {"given": GIVEN, "arrived": GIVEN, "missing": [], "unfilled": [], "in_force": in_force}
(work / "loaded.json").write_text(json.dumps(loaded))
while done < 6:
    done, total = done + 1, total + done * done
    time.sleep(0.05)
    temporary = work / "state.tmp"
    temporary.write_text(json.dumps([done, total]))
    temporary.replace(state)
    print(json.dumps({"phase": "train", "done": done, "of": 6, "loss": 1.0}), flush=True)
temporary = work / "metrics.tmp"
temporary.write_text(json.dumps({"AP": total}))
temporary.replace(work / "metrics.json")
"""


# processes


def start(work, folder: Path, *faults) -> multiprocessing.Process:
    """Begin `work` in a process of its own, under the `faults`; what it prints goes to `folder/said`."""
    process = FORKS.Process(target=_run, args=(work, folder, faults))
    process.start()
    return process


def run(work, folder: Path, *faults) -> tuple[int, str]:
    """The exit code of `work`, and what it printed."""
    process = start(work, folder, *faults)
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode, (folder / "said").read_text(encoding="utf-8", errors="replace")


def _run(work, folder: Path, faults) -> None:
    from cgh_bench import cli

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # loaders inherit the faults, and start as they do for users
    with (folder / "said").open("w", encoding="utf-8") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", encoding="utf-8", errors=errors, closefd=False)
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    for fault in faults:
        fault()
    with cli.errors_in_one_line():
        work(folder)


def command(*words: str, work: Path) -> None:
    """A verb of ours, here."""
    from cgh_bench import cli

    sys.argv = ["cgh-bench", *words, "--work", str(work / "work")]
    cli.main()


def _settings(*settings: str) -> list[str]:
    return [word for setting in settings or EVALUATION for word in ("--set", setting)]


# faults


def no_file_above(size: int) -> None:
    """As on a full disk: no file can grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_privilege() -> None:
    """The superuser's right to write where it is not allowed, given up."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective set
    assert libc.capset(header, sets) == 0


def folder_is_removed(folder: Path, sign: str) -> None:
    """As soon as there is a file `sign` (a pattern) in `folder`."""

    def remove() -> None:
        while not any(folder.glob(sign)):
            time.sleep(0.01)
        shutil.rmtree(folder, ignore_errors=True)

    threading.Thread(target=remove, daemon=True).start()


def loaders_die() -> None:
    """Every loader process is killed at its first image."""
    from cgh_bench.frozen import extraction

    transform = extraction.EvalTransform.cut

    def killed(self: object, image: torch.Tensor) -> torch.Tensor:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return transform(self, image)

    extraction.EvalTransform.cut = killed


def loader_of_step_dies(step: int, state: Path) -> None:
    """The loader process that makes the batch of `step` is killed, when there is a `state`."""
    from cgh_bench.pretrain.batches import Batches

    item = Batches.__getitem__

    def killed(self: Batches, index: int) -> object:
        if index == step and torch.utils.data.get_worker_info() is not None:
            wait_for(state)
            os.kill(os.getpid(), signal.SIGKILL)
        return item(self, index)

    Batches.__getitem__ = killed


def stop_comes_to_all(step: int, state: Path) -> None:
    """At `step`, when there is a `state`, SIGTERM comes twice to every process of the run, as torchrun and SLURM do."""
    from cgh_bench.pretrain.batches import Batches

    os.setpgrp()
    item = Batches.__getitem__

    def stopped(self: Batches, index: int) -> object:
        if index == step:
            wait_for(state)
            for _ in range(2):
                os.killpg(0, signal.SIGTERM)
                time.sleep(0.2)
        return item(self, index)

    Batches.__getitem__ = stopped


def wait_for(path: Path) -> None:
    """Until it is there."""
    while not path.exists():
        time.sleep(0.01)


def clock_runs_backwards() -> None:
    """Each look at the clock is an hour before the last."""
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    time.time = earlier


# data


def images(folder: Path, each: int = 6) -> Path:
    """Two classes of noise, as PNG."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for number in range(each):
                Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(place / f"{number}.png")
    return folder / "images"
