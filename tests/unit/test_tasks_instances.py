"""Instance retrieval: the benchmarks' own numbers on a small ranking, their layouts in miniature, and what is wrong."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data import load_related
from cgh_bench.data.instances import Truth
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.whole_images import Whole
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.instances import Instances, answered

RULES = {"_M": (("easy", "hard"), ("junk",)), "_H": (("hard",), ("junk", "easy")), "_E": (("easy",), ("junk", "hard"))}
# filipradenovic/revisitop@be39832 python/evaluate.py `compute_map` on the rankings of `drawn`, in November 2026.
OFFICIAL = {"_M": 0.3179168374072005, "_H": 0.24700169891124385, "_E": 0.1791065870550944}


def drawn() -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Rankings (5, 40) and the ground truth of five queries; the third has no easy image."""
    draw = np.random.default_rng(7)
    ranks = np.stack([draw.permutation(40) for _ in range(5)])
    orders = [draw.permutation(40) for _ in range(5)]
    return ranks, [
        {"easy": each[: 3 * (number != 2)], "hard": each[3:8], "junk": each[8:12]} for number, each in enumerate(orders)
    ]


@pytest.mark.parametrize("rule", list(RULES))
def test_trap_precision_is_that_of_the_official_code(rule: str) -> None:
    """Junk is left out, precision is of trapezoids, and a query without right images does not count."""
    ranks, known = drawn()
    right, junk = (tuple(np.concatenate([each[kind] for kind in kinds]) for each in known) for kinds in RULES[rule])
    truth = Truth(right, junk)
    found = [answered(q, ranks[q], truth, None, True) for q in range(5) if len(right[q])]
    assert np.mean([one.precision for one in found]) == pytest.approx(OFFICIAL[rule], abs=1e-12)


def test_what_lies_behind_the_depth_is_not_found() -> None:
    truth = Truth((np.array([4, 0]),), (np.array([1, 2]),))
    order = np.arange(6)
    assert answered(0, order, truth, None, False).precision == pytest.approx((1 + 2 / 3) / 2)
    assert answered(0, order, truth, 2, False).precision == pytest.approx(1 / 2)
    assert answered(0, order, truth, None, True).precision == pytest.approx((1 + (2 / 3 + 1 / 2) / 2) / 2)


def picture(path: Path, number: int, size: tuple[int, int] = (40, 30)) -> None:
    """Noise of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Oxford, Met, AmsterTime and Copydays in miniature: a query shows what its right images show."""
    root = tmp_path_factory.mktemp("instances")
    names = [f"place_{number}" for number in range(8)]
    for number, name in enumerate(names):
        picture(root / f"roxford5k/jpg/{name}.jpg", number // 2, (48, 33) if number % 2 else (33, 48))
    for number in range(2):
        picture(root / f"roxford5k/jpg/query_{number}.jpg", number, (64, 40))
    truth = [
        {"easy": np.array([0]), "hard": np.array([1]), "junk": np.array([7]), "bbx": [0.0, 0.0, 64.0, 20.0]},
        {"easy": [], "hard": np.array([2, 3]), "junk": [], "bbx": [3.2, 4.0, 60.0, 40.0]},
    ]
    about = {"imlist": names, "qimlist": ["query_0", "query_1"], "gnd": truth}
    (root / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(about))
    database, tests = [], []
    for number in range(4):
        picture(root / f"met/images/MET/{number}/0.jpg", number)
        database.append({"id": 100 + number, "path": f"MET/{number}/0.jpg"})
        picture(root / f"met/images/test_met/{number}.jpg", number, (44, 30))
        tests.append({"path": f"test_met/{number}.jpg"} | ({"MET_id": 100 + number} if number < 2 else {}))
        for side, suffix in (("new", "png"), ("old", "jpg")):
            picture(root / f"amstertime/{side}/{number:04d}.{suffix}", number)
        picture(root / f"copydays/original/20{number:02d}00.jpg", number)
        picture(root / f"copydays/strong/20{number:02d}01.jpg", number, (60, 45))
    (root / "met/ground_truth").mkdir()
    (root / "met/ground_truth/MET_database.json").write_text(json.dumps(database))
    (root / "met/ground_truth/testset.json").write_text(json.dumps(tests))
    for name in ("roxford5k", "met", "amstertime", "copydays"):
        (root / name / "SUBSET").touch()
    return root


def measured(name: str, task: Instances, folder: Path) -> dict[str, float]:
    data = load_related(name, "retrieval")
    task.check(data)
    folders = Folders(folder, folder / "cache")
    checkpoint = random_checkpoint("resnet18")
    planned = task.plan(checkpoint, data, folders)
    assert any(line.startswith("ranking: ") for line in planned)
    found = task.run(checkpoint, data, folders, 0)
    assert outcomes.load(folder).metrics() == pytest.approx(found)
    assert all("in the cache" in line for line in task.plan(checkpoint, data, folders)[:-1])
    assert set(found) == {metric.name for metric in task.METRICS}
    with Image.open(folder / "pictures/worst.png") as sheet:
        assert min(sheet.size) > 100
    return found


def test_every_layout_is_read_and_copies_are_found(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGH_DATA", str(root))
    small = EvalTransform(32, None, longest=True)
    oxford = replace(find("roxford_retrieval"), transform=small)
    found = measured("roxford5k", oxford, tmp_path / "oxford")
    assert 0 < found["mAP_H"] <= 100 and found["R@1_E"] in (0, 100)  # one query has an easy image
    assert sum(line.startswith("E,") for line in (tmp_path / "oxford/queries.csv").read_text().splitlines()) == 1
    cut = measured("roxford5k", replace(oxford, cut_queries=True), tmp_path / "cut")
    assert cut != found
    for name, images in (("met", 2), ("amstertime", 8), ("copydays", 4)):
        transform = EvalTransform(32, 32, squash=True)
        found = measured(name, replace(find(f"{name}_retrieval"), transform=transform), tmp_path / name)
        assert found["mAP"] > 60, name
        assert len((tmp_path / name / "queries.csv").read_text().splitlines()) == 1 + images
    amstertime = load_related("amstertime", "retrieval").truths[""]
    assert amstertime.right[0].tolist() == [4] and amstertime.junk[0].tolist() == [0, 1, 2, 3]
    assert amstertime.right[5].tolist() == [1] and amstertime.junk[5].tolist() == [4, 5, 6, 7]
    plain = load_related("copydays", "retrieval")
    picture(root / "copydays/distractors/far.jpg", 99)
    more = load_related("copydays", "retrieval")
    assert (len(more.gallery), more.subset) == (5, "with 1 distractors") and more.fingerprint != plain.fingerprint


def test_trap_thumbnails_keep_their_shape_and_scales_are_averaged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGH_DATA", str(root))
    images = load_related("roxford5k", "retrieval").gallery
    transform, checkpoint = EvalTransform(48, None, longest=True), random_checkpoint("vit_tiny_patch16_224")
    assert EvalTransform(40, None, longest=True).cut(images.image(0)).shape == (3, 40, 27)
    assert EvalTransform(400, None, longest=True).cut(images.image(0)).shape == (3, 48, 33)  # never larger
    found = Whole(checkpoint, transform, (1.0, 0.5), False, tmp_path).extract(images)
    backbone, pixels = checkpoint.backbone(), transform(images.image(0))[None]
    inputs = checkpoint.preprocessing(pixels)
    half = torch.nn.functional.interpolate(inputs, scale_factor=0.5, mode="bilinear")
    with torch.inference_mode():  # what is beyond the last whole patch of 16 pixels is not seen
        vectors = backbone(inputs[..., :48, :32]), backbone(half[..., :16, :16])
    assert np.abs(found[0] - torch.stack(vectors).mean(dim=0)[0].numpy()).max() < 1e-5


def test_what_is_wrong_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    for name in ("roxford5k", "met", "amstertime", "copydays"):
        with pytest.raises(UserError, match=name):
            load_related(name, "retrieval")
    with pytest.raises(UserError, match="'animals'"):
        load_related("animals", "retrieval")
    (tmp_path / "roxford5k").mkdir()
    listed = {"imlist": ["a"], "qimlist": ["b"], "gnd": [{"easy": [3], "hard": [], "junk": [], "bbx": [0, 0, 1, 1]}]}
    for given, match in (([1], "not an annotation"), (listed, "to queries or images"), ({}, "not an annotation")):
        (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(given))
        with pytest.raises(UserError, match=match):
            load_related("roxford5k", "retrieval")
    listed["gnd"] = [{"easy": [0], "hard": [], "junk": [], "bbx": [0, 0, 1, 1]}]
    (tmp_path / "roxford5k/gnd_roxford5k.pkl").write_bytes(pickle.dumps(listed))
    with pytest.raises(UserError, match="4,993"):
        load_related("roxford5k", "retrieval")
    (tmp_path / "roxford5k/SUBSET").touch()
    with pytest.raises(UserError, match=r"2 images .* jpg/a.jpg"):
        load_related("roxford5k", "retrieval")
    for name in ("a", "b"):
        picture(tmp_path / f"roxford5k/jpg/{name}.jpg", 1)
    data = load_related("roxford5k", "retrieval")
    with pytest.raises(UserError, match="roxford5k_H has a relevant image"):
        find("roxford_retrieval").check(data)
    monkeypatch.setenv("CGH_DATA", str(root))
    with pytest.raises(UserError, match="no query boxes"):
        replace(find("met_retrieval"), cut_queries=True).check(load_related("met", "retrieval"))
    with pytest.raises(UserError, match="depth 0"):
        Instances("met", depth=0)
    with pytest.raises(UserError, match="longest"):
        EvalTransform(224, 224, longest=True)
