"""Images that an evaluation cannot use: one line that says what to do, exit code 2, and nothing evaluated."""

import re
from pathlib import Path

import command
import numpy as np
import pytest
from PIL import Image

SMALL = ("--set", "transform.resize=32", "--set", "transform.crop=32")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of noise: `some` of three classes, `numbered` of two by their own numbers, `alone` of one class."""
    root = tmp_path_factory.mktemp("folders")
    draw = np.random.default_rng(0)
    for folder, classes in {"some": ("cat", "cow", "dog"), "numbered": ("0", "1"), "alone": ("cat",)}.items():
        for split, count in (("train", 6), ("val", 2)):
            for label in classes:
                (root / folder / split / label).mkdir(parents=True)
                for number in range(count):
                    pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / folder / split / label / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("task", "data", "settings", "said"),
    [
        (
            "shifted",
            "some",
            ["shifted=numbered", "held_out=0.2"],
            "classes 0 to 1, which may not match the probe's 3",
        ),
        (
            "ood",
            "some",
            ["against=numbered", "k=3", "held_out=0.2"],
            "18 train images do not determine; 99 do, .*mahalanobis=false",
        ),
        ("linear", "alone", [], r"has one class \('cat'\); at least two are needed"),
        ("linear", "numbered", ["held_out=0.01"], "held_out=0.01 of the 12 images .*use a value nearer to 0.5"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_one_line_and_exit_code_2(
    task: str, data: str, settings: list[str], said: str, dry: list[str], folders: Path, tmp_path: Path
) -> None:
    words = [word for each in settings for word in ("--set", each)]
    refused = command.run(
        "eval", task, "--ckpt", "random:test_resnet", "--data", data, *SMALL, *words, *dry, "--work", tmp_path,
        cwd=folders,
    )  # fmt: skip
    assert refused.returncode == 2
    *_, line = refused.stderr.splitlines()
    assert line.startswith("error: ") and re.search(said, line), refused.stderr
    assert not (tmp_path / "results.jsonl").exists()
