"""Other images of the same classes: which answers are allowed and right, and that nothing is learned from them."""

import json
from dataclasses import replace
from pathlib import Path

import command
import numpy as np
import pytest
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import load
from cgh_bench.data.imagenet_shifts import imagenet_c
from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.imagenet_c import ALEXNET, EXTRA, ImageNetC, ImageNetC19, corruption_errors
from cgh_bench.tasks.shifted import columns_of

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")
COLOURS = ((220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 30))


def picture(path: Path, colour: tuple[int, int, int], seed: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 12, (side, side, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four classes of ImageNet, and its relatives, each laid out as its authors do."""
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    for label, (wnid, colour) in enumerate(zip(WNIDS, COLOURS, strict=True)):
        for n in range(6):
            picture(tmp_path / f"imagenet1k/train/{wnid}/{n}.png", colour, 10 * label + n)
        for n in range(2):
            number = 2 * label + n + 1
            picture(tmp_path / f"imagenet1k/val/{wnid}/ILSVRC2012_val_{number:08d}.png", colour, 100 + number)
        picture(tmp_path / f"imagenetv2-matched-frequency-format-val/{label}/a.png", colour, 200 + label)
    for wnid in WNIDS[1:3]:
        picture(tmp_path / f"imagenet-a/{wnid}/a.png", COLOURS[WNIDS.index(wnid)], 300)
    for folder in ("imagenet1k", "imagenetv2-matched-frequency-format-val", "imagenet-a"):
        (tmp_path / folder / "SUBSET").touch()
    return tmp_path


def test_folders_named_by_numbers_are_sorted_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    for number in range(12):
        picture(folder / f"{number}/a.png", (number, 0, 0), number)
    (folder / "SUBSET").touch()
    images = load("imagenet_v2", "val")
    assert [f"{images.classes[label]}/a.png" for label in images.labels] == list(images.paths)
    assert images.classes[2] == "2"
    wnids = [f"n{n:08d}" for n in range(12)]
    assert columns_of(images, wnids).tolist() == list(range(12))
    as_words = replace(images, classes=tuple(sorted(images.classes)))  # a folder of one's own: 0, 1, 10, 11, 2, …
    assert columns_of(as_words, wnids).tolist() == [0, 1, 10, 11, *range(2, 10)]


def test_a_set_of_some_of_the_classes_has_only_these_as_answers(root: Path):
    images = load("imagenet_a", "val")
    assert images.classes == WNIDS[1:3]
    assert columns_of(images, WNIDS).tolist() == [1, 2]
    own = replace(images, classes=("0", "1"), labels=images.labels * 0)
    with pytest.raises(UserError, match=r"0 to 1, which may not match the probe's \d"):
        columns_of(own, WNIDS)
    with pytest.raises(UserError, match="n01443537"):
        columns_of(images, ["cat", "dog"])


def test_it_cannot_be_learned_from(root: Path):
    with pytest.raises(UserError, match="only"):
        load("imagenet_a", "train")


def test_real_accepts_each_of_its_labels_and_drops_images_without_any(root: Path):
    """The labels are in the order of the file names, which start at 1."""
    answers = [[0], [0, 3], [], [1], [2], [2], [3], []]
    (root / "imagenet1k/real.json").write_text(json.dumps(answers))
    images = load("imagenet_real", "val")
    assert [Path(path).stem[-2:] for path in images.paths] == ["01", "02", "04", "05", "06", "07"]
    assert images.right(np.array([0, 3, 0, 2, 2, 3])).tolist() == [True, True, False, True, True, True]
    before = images.fingerprint
    (root / "imagenet1k/real.json").write_text(json.dumps([[0], [0], *answers[2:]]))
    assert load("imagenet_real", "val").fingerprint != before


def test_objectnet_is_read_by_its_own_mappings_and_without_its_frame(root: Path):
    folder = root / "objectnet-1.0"
    picture(folder / "images/tin_opener/a.png", COLOURS[0], 1)
    picture(folder / "images/helmet/a.png", COLOURS[1], 2)
    picture(folder / "images/not_in_imagenet/a.png", COLOURS[1], 3)
    (folder / "SUBSET").touch()
    maps = {
        "folder_to_objectnet_label.json": {"tin_opener": "Tin", "helmet": "Helmet", "not_in_imagenet": "Other"},
        "objectnet_to_imagenet_1k.json": {"Tin": "can opener, tin opener", "Helmet": "crash helmet; football helmet"},
        "pytorch_to_imagenet_2012_id.json": {"0": 2, "2": 0, "3": 1},
    }
    (folder / "mappings").mkdir()
    for name, content in maps.items():
        (folder / "mappings" / name).write_text(json.dumps(content))
    lines = ["crash helmet", "football helmet", "can opener, tin opener"]
    (folder / "mappings/imagenet_to_label_2012_v2").write_text("\n".join(lines))
    images = load("objectnet", "val")
    assert images.classes == ("0", "2", "3")
    assert images.paths == ("helmet/a.png", "tin_opener/a.png")
    assert images.right(np.array([1, 1])).tolist() == [True, False]
    assert images.right(np.array([2, 0])).tolist() == [True, True]
    assert tuple(images.image(0).shape) == (3, 28, 28)


@pytest.mark.parametrize(
    ("corruption", "top1", "error"),
    [
        ("brightness", 68.02, 56.64),
        ("contrast", 39.06, 71.43),
        ("defocus_blur", 38.75, 74.71),
        ("elastic_transform", 45.25, 84.75),
        ("fog", 45.83, 66.11),
        ("frost", 38.14, 74.84),
        ("gaussian_noise", 29.29, 79.77),
        ("glass_blur", 26.79, 88.61),
        ("impulse_noise", 23.81, 82.58),
    ],
)
def test_the_corruption_error_of_a_resnet50_is_the_published_one(corruption: str, top1: float, error: float):
    """What others printed for torchvision's ResNet-50."""
    assert corruption_errors((corruption,), np.full((1, 5), top1)) == pytest.approx([error], abs=0.01)


def test_the_mean_corruption_error_is_over_fifteen_corruptions_at_all_severities(root: Path):
    assert len(ImageNetC().corruptions) == 15
    assert (len(ImageNetC19().corruptions), ImageNetC19.METRICS[0].name) == (19, "mce_19")
    as_alexnet = 100 * (1 - np.array([[{**ALEXNET, **EXTRA}[name]] for name in ImageNetC19().corruptions]))
    assert corruption_errors(ImageNetC19().corruptions, as_alexnet) == pytest.approx([100] * 19)
    with pytest.raises(UserError, match="all five"):
        ImageNetC(severities=(1, 2))
    with pytest.raises(UserError, match="speckle_noise"):
        ImageNetC(corruptions=("speckle_noise",))
    with pytest.raises(UserError, match=r"imagenet-c/fog/1 not found.*zenodo"):
        imagenet_c(root, "fog", 1)


def test_one_head_serves_all_of_them(root: Path, tmp_path: Path):
    work = tmp_path / "work"
    for name in ("imagenet_r", "imagenet_sketch"):
        for wnid in WNIDS[:2]:
            picture(root / name.replace("_", "-") / wnid / "a.png", COLOURS[WNIDS.index(wnid)], 7)
        (root / name.replace("_", "-") / "SUBSET").touch()
    for corruption in ("fog", "snow", "spatter"):
        for severity in range(1, 6):
            for label, wnid in enumerate(WNIDS):
                picture(root / f"imagenet-c/{corruption}/{severity}/{wnid}/a.png", COLOURS[label], severity)
    sets = ImageNetC(corruptions=("fog",)).sets(ImageNetC().load_data(tmp_path))
    assert [transform for _, transform in sets[2:]] == [AS_IS] * 5  # stored at 224 pixels, and never resized to 256
    small = ("--set", "transform.resize=32", "--set", "transform.crop=32")
    common = ("--ckpt", "random:test_resnet", "--set", "held_out=0.2", *small, "--work", str(work))
    done = command.run("eval", "imagenet_v2_shifted,imagenet_a_shifted,imagenet_r_shifted", *common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    heads = list((work / "cache/heads").iterdir())
    assert len(heads) == 1
    stamp = heads[0].stat().st_mtime_ns
    done = command.run("eval", "imagenet_c", *common, "--set", "corruptions=fog,snow", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command.run("eval", "imagenet_c_19", *common, "--set", "corruptions=fog,spatter", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [head.stat().st_mtime_ns for head in (work / "cache/heads").iterdir()] == [stamp]
    results = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    assert [result["metrics"]["top1"] for result in results] == [100.0] * 5
    assert (results[3]["metrics"]["mce"], results[4]["metrics"]["mce_19"]) == (0, 0)
    assert all(result["subset"] for result in results)
