"""The installed command, as a person types it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "cgh_bench"]
VERBS = tuple(
    [
        "demo",
        "doctor",
        "pretrain",
        "inspect",
        "convert",
        "eval",
        "table",
        "reproduce",
        "published",
        "report",
        "serve",
        "watch",
        "list",
    ]
)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_instant_and_has_an_example(verb: str, tmp_path: Path) -> None:
    start = time.process_time(), time.monotonic()
    shown = run(*([verb] if verb else []), "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "cgh-bench" in shown.stdout
    assert ("Example" in shown.stdout) or not verb
    assert time.monotonic() - start[1] < 30  # a stuck import; the second is measured by hand, machines differ


def test_help_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from cgh_bench import cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "animals_kn", "--ckpt", "random:resnet18"], "did you mean animals_knn"),
        (["eval", "knn", "--ckpt", "random:resnet18"], "--data FOLDER"),
        (["eval", "animals_knn", "--ckpt", "nowhere.pth"], "nowhere.pth"),
        (["eval", "animals_knn", "--ckpt", "random:resnet18", "--set", "k=many"], "'many' is not a whole number"),
        (["eval", "animals_knn", "--ckpt", "random:resnet18", "--set", "kk=3"], "did you mean k"),
        (["eval", "coco_det", "--ckpt", "random:resnet50"], "coco is not complete: there is no folder"),
        (["pretrain", "cgh_r18_animal"], "did you mean cgh_r18_animals"),
        (["pretrain", "cgh_r18_animals", "--set", "method.queue=9"], "did you mean queue_length"),
        (["pretrain", "cgh_r18_animals", "--seed", "-1"], "seed -1 must be at least 0"),
        (["pretrain", "cgh_r18_animals", "--gpus", "0"], "--gpus goes with --slurm; leave it out"),
        (["pretrain", "cgh_r18_animals", "--dry-run", "--track", "wand"], "did you mean wandb"),
        (["table", "animal"], "did you mean animals"),
        (["list", "taks"], "did you mean tasks"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_a_user_must_change_is_one_line_and_exit_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    refused = run(*arguments, cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert message in refused.stderr
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_checkpoint_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"model": {"head.weight": torch.zeros(3, 3)}}, tmp_path / "odd.pth")
    refused = run("eval", "animals_knn", "--ckpt", "odd.pth", cwd=tmp_path)
    assert refused.returncode == 2
    assert "odd.pth" in refused.stderr


def test_a_plain_folder_of_images_needs_no_other_preparation(tmp_path: Path) -> None:
    """Two classes that brightness tells apart, 40 images of 70x50 pixels in a folder with a space and an umlaut."""
    photos = tmp_path / "my phötos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for level, name in ((40, "dark"), (200, "bright")):
            folder = photos / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level, level + 50, (50, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    arguments = ("eval", "knn,linear", "--ckpt", "random:resnet18", "--data", str(photos))
    sizes = ("--set", "transform.crop=64", "--set", "transform.resize=64")
    done = run(*arguments, *sizes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "work/results.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["knn", "linear"]
    assert all(line["metrics"]["top1"] == 100 for line in lines)
    again = run(*arguments, *sizes, "--dry-run", cwd=tmp_path)
    assert again.stdout.count("finished") == 2
