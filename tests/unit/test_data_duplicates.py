"""Images of a dataset that are also in another are found, copies in other sizes and formats too."""

import csv
from pathlib import Path

import command
import numpy as np
from PIL import Image


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_copies_are_found_in_other_sizes_and_formats(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).resize((40, 40), Image.Resampling.BICUBIC)
        for _ in range(8)
    ]
    for number, picture in enumerate(pictures):
        write(tmp_path / f"mine/val/class{number % 2}/{number}.png", picture)
        write(tmp_path / f"mine/train/class{number % 2}/{number}.png", picture.transpose(Image.Transpose.ROTATE_90))
    write(tmp_path / "theirs/train/a/copy.png", pictures[3])
    write(tmp_path / "theirs/train/b/small.jpg", pictures[6].resize((32, 32)))
    told = command.run("data", "duplicates", tmp_path / "mine", tmp_path / "theirs", "-o", "pairs.csv", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("2 of 8 images of mine/val") and "among the 2 images of theirs/train" in told.stdout
    with (tmp_path / "pairs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(Path(line["image"]).name, Path(line["other"]).name) for line in lines] == [
        ("3.png", "copy.png"),
        ("6.png", "small.jpg"),
    ]
    assert float(lines[0]["cosine"]) > float(lines[1]["cosine"]) > 0.99
    assert command.run("data", "duplicates", tmp_path / "mine", tmp_path / "mine", cwd=tmp_path).stdout.startswith(
        "0 of"
    )
    write(tmp_path / "loose/deep/again.png", pictures[1])
    for number in (1, 2):
        write(tmp_path / f"loose/{number}.png", pictures[number])
    within = command.run("data", "duplicates", tmp_path / "loose", cwd=tmp_path)
    assert within.stdout.splitlines()[0].startswith("1 of 3 images of loose (33.3 %) are there twice")
    assert within.stdout.splitlines()[1:] == ["  1.png = deep/again.png  1.0000"]
    wrong = command.run("data", "duplicates", tmp_path / "mine", tmp_path / "theirs", "--split", "test", cwd=tmp_path)
    assert wrong.returncode == 2 and "'test'" in wrong.stderr
