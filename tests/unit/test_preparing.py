"""`data prepare`: the same files and labels with smaller images, resumed, and never taken for the published set."""

from pathlib import Path

import command
import numpy as np
import pytest
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import catalog, load
from cgh_bench.data.decoding import read_image


def run(*words):
    return command.run("data", "prepare", *map(str, words), cwd=Path())


@pytest.fixture
def photos(tmp_path):
    """A large smooth image, a turned one, a small one and a list, in two classes."""
    ramp = np.mgrid[0:120, 0:200].sum(0)[..., None].repeat(3, 2) * 0.79
    large = Image.fromarray(ramp.astype(np.uint8))
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            large.save(tmp_path / "photos" / split / name / "large.JPEG", quality=98)
            large.resize((30, 20)).save(tmp_path / "photos" / split / name / "small.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    large.save(tmp_path / "photos/train/cat/turned.jpg", exif=turned)
    (tmp_path / "photos/list.txt").write_text("one\n")
    return tmp_path / "photos"


def test_large_images_are_reduced_and_all_else_is_as_it_was(photos, tmp_path):
    copy = tmp_path / "copy"
    planned = run(photos, "-o", copy, "--side", 60, "--dry-run").stdout
    assert planned.startswith("9 images of ") and not copy.exists()
    assert run(photos, "-o", copy, "--side", 60).stdout == f"{copy}: 10 files\n"
    before, after = load(str(photos), "train"), load(str(copy), "train")
    assert after.paths == before.paths and after.labels.tolist() == before.labels.tolist()
    assert after.fingerprint != before.fingerprint
    shapes = {path: tuple(read_image(copy / "train" / path).shape) for path in after.paths}
    assert shapes["cat/large.JPEG"] == (3, 60, 100) and shapes["cat/turned.jpg"] == (3, 100, 60)
    assert (copy / "val/dog/small.png").read_bytes() == (photos / "val/dog/small.png").read_bytes()
    assert (copy / "list.txt").read_text() == "one\n"
    half = read_image(photos / "val/cat/large.JPEG")[:, ::2, ::2].float()
    assert (read_image(copy / "val/cat/large.JPEG").float() - half).abs().mean() < 2


def test_it_resumes_and_names_what_cannot_be_read(photos, tmp_path):
    copy, broken = tmp_path / "copy", photos / "val/dog/large.JPEG"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    failed = run(photos, "-o", copy, "--side", 60)
    assert failed.returncode == 2 and str(broken) in failed.stderr and "1 images were skipped" in failed.stderr
    kept = (copy / "val/cat/large.JPEG").stat()
    broken.write_bytes(whole)
    assert run(photos, "-o", copy, "--side", 60).returncode == 0
    assert (copy / "val/cat/large.JPEG").stat().st_mtime_ns == kept.st_mtime_ns
    assert read_image(copy / "val/dog/large.JPEG").shape == (3, 60, 100)


@pytest.mark.parametrize(
    ("source", "target", "side", "said"),
    [
        ("photos", "photos/copy", 60, "contains the other"),
        ("photos", "full", 60, "not empty"),
        ("photos", "copy", 8, "x>=16"),
        ("absent", "copy", 60, "no folder"),
        ("empty", "copy", 60, "no images in"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_a_line(photos, tmp_path, source, target, side, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    failed = run(tmp_path / source, "-o", tmp_path / target, "--side", side)
    assert failed.returncode == 2 and said in failed.stderr
    assert (tmp_path / "full/mine.txt").read_text() == "mine" and not (tmp_path / "copy").exists()


def test_a_copy_is_not_the_published_set(photos, tmp_path):
    run(photos, "-o", tmp_path / "imagenet1k", "--side", 60)
    with pytest.raises(UserError, match="a reduced copy"):
        catalog()["imagenet1k"].load(tmp_path, "val")
    assert len(load(str(tmp_path / "imagenet1k"), "val")) == 4
