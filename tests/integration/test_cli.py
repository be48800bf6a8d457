"""The installed command, as a person types it."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import command
import numpy as np
import pytest
from command import run
from PIL import Image

from cgh_bench import cli


def cpu_seconds(*command: str, cwd: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, timeout=120, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(group: click.Group = cli.app, *names: str) -> dict[tuple[str, ...], click.Command]:
    """Every command, by the words that call it."""
    found: dict[tuple[str, ...], click.Command] = {}
    for name, verb in group.commands.items():
        found |= commands(verb, *names, name) if isinstance(verb, click.Group) else {(*names, name): verb}
    return found


# help


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_fits_the_terminal_shows_no_python_types_and_has_an_example(words: tuple[str, ...]) -> None:
    command = commands()[words]
    context = click.Context(command, info_name=" ".join(("cgh-bench", *words)), **cli.SETTINGS)
    shown = command.get_help(context)
    assert "Example" in shown and "cgh-bench" in shown
    summary = command.get_short_help_str(200)
    assert len(f"  reproduce  {summary}") <= 80, summary
    usage = shown.split("\n\n")[0]
    assert not re.search(r"[<{]|INTEGER|FLOAT|range", usage + "".join(re.findall(r"^ +-.*?  ", shown, re.MULTILINE)))
    assert not re.search(r"^ .*  Of ", shown, re.MULTILINE), "an option's help is a sentence"


def test_help_is_shown_within_a_fifth_of_a_second_beyond_pythons_own_start(tmp_path: Path) -> None:
    """Seconds of processor time, the best of three: 0.1 s on an idle machine."""
    idle = min(cpu_seconds("-c", "pass", cwd=tmp_path) for _ in range(3))
    assert min(cpu_seconds("-m", "cgh_bench", "--help", cwd=tmp_path) for _ in range(3)) < idle + 0.2


WITHOUT_TORCH = [
    ("--help", 0),
    ("eval --help", 0),
    ("list tasks", 0),
    ("list recipes", 0),
    ("list backbones", 0),
    ("list sources", 0),
    ("list converters", 0),
    ("list checkpoints", 0),
    ("list data", 0),
    ("list tables", 0),
    ("list importers", 0),
    ("results list", 0),
    ("results export", 0),
    ("published --protocol voc_det", 0),
    ("table animals", 0),
    ("eval animals_kn --ckpt random:resnet18", 2),
    ("eval animals_knn --ckpt nowhere.pth", 2),
    ("inspect nowhere.pth", 2),
    ("convert nowhere.pth --to timm", 2),
]
NO_TORCH = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(command.__file__).parent)!r})
import command
from cgh_bench.core.registry import broken
for arguments, code in {WITHOUT_TORCH!r}:
    done = command.run(*arguments.split(), cwd=Path.cwd())
    assert done.returncode == code, (arguments, done.stderr)
    slow = {{"torch", "torchvision", "timm", "transformers", "sklearn", "scipy", "pandas", "faiss"}} & set(sys.modules)
    assert not slow, (arguments, slow)
assert broken("cgh_bench.tasks") == []
"""


def test_what_needs_no_torch_does_not_wait_for_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


# errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval animals_kn --ckpt random:resnet18", "animals_knn"),
        ("eval nothing* --ckpt random:resnet18", "nothing*"),
        ("eval knn --ckpt random:resnet18", "--data"),
        ("eval animals_knn --ckpt nowhere.pth", "nowhere.pth"),
        ("eval animals_knn --ckpt random:resnet18 --ckpt nowhere.pth", "nowhere.pth"),
        ("eval animals_knn --ckpt runs/*.pth", "runs/*.pth"),
        ("eval animals_knn", "--ckpt"),
        ("eval animals_knn --ckpt random:resnet18 --seed 3", "cgh-bench eval knn"),
        ("eval animals_knn --ckpt random:resnet18 --seeds 0", "--seeds"),
        ("eval animals_knn --ckpt random:resnet18 --set k=many", "'many'"),
        ("eval animals_knn --ckpt random:resnet18 --set kk=3", "did you mean k"),
        ("eval animals_knn --ckpt random:resnet18 --dry-run --gpus 1 --slurm partition", "'partition'"),
        ("eval coco_det --ckpt random:resnet50", "coco"),
        ("evall", "eval"),
        ("inspect random:resnet18", "random:resnet18"),
        ("inspect nowhere.pth", "nowhere.pth"),
        ("watch nowhere --task animals_knn", "nowhere"),
        ("pretrain cgh_r18_animal", "cgh_r18_animals"),
        ("pretrain cgh_r18_animals --set method.queue=9", "queue_length"),
        ("pretrain cgh_r18_animals --seed -1", "--seed"),
        ("pretrain cgh_r18_animals --gpus 0", "--slurm"),
        ("pretrain cgh_r18_animals --dry-run --track wand", "wandb"),
        ("pretrain cgh_r18_animals --dry-run --track mlflow", "pip install mlflow"),
        ("table animal", "animals"),
        ("list taks", "tasks"),
    ],
)
def test_what_a_user_must_change_is_one_line_and_exit_2(arguments: str, message: str, tmp_path: Path) -> None:
    refused = run(*arguments.split(), cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert message in refused.stderr
    assert not list(tmp_path.rglob("*.jsonl"))


LONG = "n" * 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval animals_knn --ckpt random:resnet18 --work file --dry-run", "file"),
        ("eval animals_knn --ckpt random:resnet18 --work file/x --dry-run", "file"),
        ("eval animals_knn --ckpt random:resnet18 --work loop/x", "loop"),
        ("report --work work -o file", "file"),
        ("pretrain cgh_r18_animals -o file", "file"),
        (f"pretrain cgh_r18_animals -o {LONG} --dry-run", LONG),
        (f"inspect {LONG}", LONG),
        ("inspect dangling", "dangling"),
        ("inspect loop", "loop"),
        (f"convert random:resnet18 --to timm -o {LONG}.safetensors", LONG),
        (f"convert random:resnet18 --to timm -o {LONG[:240]}.safetensors", LONG[:240]),
        ("convert random:resnet18 --to timm -o file/x.safetensors", "file"),
        ("convert random:resnet18 --to timm -o loop/x.safetensors", "loop"),
        ("inspect five", "five/config.json"),
        ("table digits.toml", "digits.toml"),
    ],
)
def test_paths_and_values_that_cannot_be_are_one_line_and_exit_2(arguments: str, message: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "five").mkdir()
    (tmp_path / "five/config.json").write_text("5")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "five/model.safetensors")
    (tmp_path / "digits.toml").write_text(f"rows = {'1' * 100_000}\n")
    refused = run(*arguments.split(), cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: "), refused.stderr
    assert "Traceback" not in refused.stderr and message in refused.stderr


def test_a_checkpoint_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"model": {"head.weight": torch.zeros(3, 3)}}, tmp_path / "odd.pth")
    refused = run("eval", "animals_knn", "--ckpt", "odd.pth", cwd=tmp_path)
    assert refused.returncode == 2
    assert "odd.pth" in refused.stderr


# evaluating


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes that brightness tells apart, images of 70x50 pixels in a folder with a space and an umlaut."""
    photos = tmp_path / "my phötos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for level, name in ((40, "dark"), (200, "bright")):
            folder = photos / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level, level + 50, (50, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return photos


SMALL = ("--set", "transform.crop=64", "--set", "transform.resize=64")


def results_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "work/results.jsonl").read_text().splitlines()]


def test_a_plain_folder_of_images_needs_no_other_preparation(photos: Path, tmp_path: Path) -> None:
    arguments = ("eval", "knn,linear", "--ckpt", "random:resnet18", "--data", str(photos), *SMALL)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line["task"] for line in results_in(tmp_path)] == ["knn", "linear"]
    assert all(line["metrics"]["top1"] == 100 for line in results_in(tmp_path))
    banks = list((tmp_path / "work/cache/features").glob("*/done.json"))
    assert len(banks) == 2, "both tasks read the same features of train and val"
    again = run(*arguments, "--dry-run", cwd=tmp_path)
    assert again.stdout.count("finished") == 2


def test_every_checkpoint_is_evaluated_and_an_untrained_one_is_named(photos: Path, tmp_path: Path) -> None:
    import torch
    import torchvision

    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / f"net{seed}.pth")
    given = ("--ckpt", "net*.pth", "--ckpt", "random:resnet18", "--ckpt", "net1.pth")
    arguments = ("eval", "linear,kn[n]", *given, "--data", str(photos), *SMALL)
    planned = run(*arguments, "--dry-run", cwd=tmp_path)
    assert planned.stdout.count("would run") == 6, planned.stderr
    assert not list((tmp_path / "work").rglob("*.jsonl"))
    done = run("eval", "knn", *given, "--data", str(photos), *SMALL, cwd=tmp_path)
    assert [line["checkpoint_name"] for line in results_in(tmp_path)] == ["net1", "net2", "random:resnet18"]
    assert len(done.stdout.splitlines()) == 3
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: ") and "untrained" in line]
    assert {line.split(": ")[1] for line in warned} == {"net1", "net2"}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    tasks = "animals_det,animals_seg,animals_incontext_fine,animals_depth"
    planned = run("eval", tasks, "--ckpt", "random:resnet18", "--dry-run", cwd=tmp_path)
    assert planned.stdout.count("would run") == 4, planned.stderr
    refused = run("eval", "animals_det", "--ckpt", "random:vit_tiny_patch16_224", "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2 and "vit_tiny_patch16_224" in refused.stderr
    assert run("reproduce", "animals", "--dry-run", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


# watching


def test_watch_takes_any_checkpoint_and_survives_a_half_written_one(photos: Path, tmp_path: Path) -> None:
    import torch
    import torchvision

    (runs := tmp_path / "runs").mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), runs / "a.pth")
    whole = (runs / "a.pth").read_bytes()
    (runs / "b.pth.tar").write_bytes(whole[: len(whole) // 2])
    (runs / ".unfinished-x").mkdir()
    (runs / ".unfinished-x/c.pth").write_bytes(whole)
    (runs / "gone.pth").symlink_to("nowhere")
    watched = run("watch", "runs", "--task", "knn", "--data", str(photos), "--once", cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    assert [line["checkpoint_name"] for line in results_in(tmp_path)] == ["a"]
    assert "b.pth.tar" in watched.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_meets_code_made_by_exec_is_told_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "interrupted.py").write_text("""
import os, signal, sys
from cgh_bench import cli
with cli.errors_in_one_line():
    cli._interrupt_on([getattr(signal, sys.argv[1])])
    exec("os.kill(os.getpid(), getattr(signal, sys.argv[1])); [0 for _ in range(100)]")
""")
    command = [sys.executable, "-m", "interrupted", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stderr.startswith("interrupted: ")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGHUP, signal.SIGINT))]
)
def test_a_signal_to_stop_is_told_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "cgh_bench", "watch", str(tmp_path), "--task", "animals_knn", "--seconds", "300"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.strip().splitlines() == ["interrupted: progress is saved; run the same command to resume"]
