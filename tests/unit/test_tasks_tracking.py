"""Video segmentation: J and F of the official code, propagation beside a plain loop, DAVIS' layout, and bad input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import davis
from PIL import Image

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data import load_related
from cgh_bench.data.demo.moving import VideoSettings, animal_videos
from cgh_bench.data.videos import Videos
from cgh_bench.frozen.frames import Propagation, contour, decided, region
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.tracking import Tracking, scored

FEW = VideoSettings(videos=2, frames=5, side=64, most_animals=2, length=(24, 30))
# davisvideochallenge/davis2017-evaluation@ac7c43f on `moved(FEW)`, in November 2026: J and F of each object.
OFFICIAL = (
    (0.41613588110403393, 0.43757177106113315),
    (0.39339145409536114, 0.4141784332505982),
    (0.4582299421009099, 0.4353091684434967),
)


def moved(videos: Videos) -> list[np.ndarray]:
    """Predictions: the truth, a pixel lower and two to the right in each frame; no object at all in the third."""
    found = []
    for video in videos.videos:
        each = np.stack([np.roll(owner, (1, 2), (0, 1)) for owner in video.owners()])
        each[2] = 0
        found.append(each)
    return found


def test_made_videos_are_exact_and_every_object_is_in_the_first_frame() -> None:
    few = animal_videos(FEW)
    assert few.fingerprint != animal_videos(replace(FEW, seed=1)).fingerprint
    for number, video in enumerate(few.videos):
        owners = video.owners()
        assert sorted(set(np.unique(owners[0])) - {0}) == list(range(1, 2 + number % 2))
        for index in range(len(owners)):
            pixels = video.frames.image(index).double().mean(dim=0).numpy()
            assert pixels[owners[index] > 0].mean() > pixels[owners[index] == 0].mean() + 20
        assert (owners[0] != owners[-1]).any()


def test_j_and_f_are_those_of_the_official_code() -> None:
    few = animal_videos(FEW)
    found = [scored(video.owners(), each) for video, each in zip(few.videos, moved(few), strict=True)]
    assert np.concatenate(found) == pytest.approx(np.array(OFFICIAL), abs=1e-12)
    nothing, something = np.zeros((8, 9), bool), np.zeros((8, 9), bool)
    something[2:5, 3:6] = True
    assert (region(nothing, nothing), contour(nothing, nothing)) == (1, 1)
    assert (region(something, nothing), contour(something, nothing), contour(nothing, something)) == (0, 0, 0)
    assert (region(something, something), contour(something, something)) == (1, 1)


def test_labels_are_carried_as_by_a_loop_over_positions_and_ties_are_kept() -> None:
    grid, draw = (3, 4), np.random.default_rng(0)
    features = draw.standard_normal((4, 12, 5)).astype(np.float32)
    features[:, 3] = features[:, 7]  # ties
    first = torch.nn.functional.one_hot(torch.from_numpy(draw.integers(0, 3, grid)), 3).permute(2, 0, 1).float()
    carried = [shares.flatten(1).T.numpy() for shares in Propagation(2, 1, 2, 0.1).carry(features, grid, first)]
    units = features / np.linalg.norm(features, axis=2, keepdims=True)
    labels = {0: first.flatten(1).T.numpy()}
    for frame in range(1, 4):
        labels[frame] = np.zeros((12, 3))
        for place in range(12):
            sources = []
            for other in sorted({0, *range(max(1, frame - 2), frame)}):
                for there in range(12):
                    near = max(abs(place // 4 - there // 4), abs(place % 4 - there % 4)) <= 1
                    similarity = float(units[other, there] @ units[frame, place])
                    sources.append((np.exp(similarity / 0.1) if near else 0.0, labels[other][there]))
            least = sorted((weight for weight, _ in sources), reverse=True)[1]
            kept = [(weight, label) for weight, label in sources if weight >= least * (1 - 1e-6)]
            labels[frame][place] = sum(w * label for w, label in kept) / sum(w for w, _ in kept)
        assert carried[frame - 1] == pytest.approx(labels[frame], abs=1e-5)


def test_each_share_is_stretched_before_the_largest_is_taken() -> None:
    shares = torch.tensor([[[0.9, 0.6]], [[0.1, 0.4]], [[0.0, 0.0]]])
    assert decided(shares, (1, 2), (2, 4)).tolist() == [[0, 0, 1, 1]] * 2
    constant = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert decided(constant, (1, 2), (1, 2)).tolist() == [[0, 0]]


def test_sides_are_those_of_the_published_script() -> None:
    task = Tracking("davis2017")
    assert task.size_of((480, 854)) == (480, 832)
    assert task.size_of((854, 480)) == (832, 480)
    assert task.size_of((480, 480)) == (480, 480)
    assert task.size_of((1080, 1920)) == (480, 832)


def run(task: Tracking, videos: Videos, folder: Path) -> dict[str, float]:
    return task.run(random_checkpoint("test_resnet"), videos, Folders(folder, folder / "cache"), 0)


def test_davis_in_its_layout_several_processes_and_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"val.txt cannot be read"):
        load_related("davis2017", "video")
    names = davis(animal_videos(FEW), tmp_path)
    videos = load_related("davis2017", "video")
    assert videos.subset == "2 of 30 videos" and [video.name for video in videos.videos] == names
    task = Tracking("davis2017", short=64, feature="layer2")
    found = run(task, videos, tmp_path / "one")
    assert 0 < found["J"] <= 100 and found["J&F"] == pytest.approx((found["J"] + found["F"]) / 2)
    kept = outcomes.load(tmp_path / "one")
    assert kept.metrics() == pytest.approx(found) and len(kept.images) == 3
    for name in names:
        with Image.open(tmp_path / f"one/masks/{name}/00000.png") as first:
            assert (np.asarray(first) == videos.videos[names.index(name)].owner(0)).all()
    assert (tmp_path / "one/pictures/tracking.png").stat().st_size > 1000
    planned = task.plan(random_checkpoint("test_resnet"), videos, Folders(tmp_path / "one", tmp_path / "one/cache"))
    assert "in the cache" in planned[0] and planned[-1].startswith("propagation: at most ")
    monkeypatch.setattr(dist, "gather_shares", lambda parts: [parts[:1], parts[1:]])  # as two processes give them
    assert run(task, videos, tmp_path / "one") == found
    for path, match in (
        (f"Annotations/480p/{names[0]}/00002.png", "frame 00002 has no image or no map"),
        (f"JPEGImages/480p/{names[1]}/00004.jpg", "frame 00004 has no image or no map"),
    ):
        held = (tmp_path / "DAVIS" / path).read_bytes()
        (tmp_path / "DAVIS" / path).unlink()
        with pytest.raises(UserError, match=match):
            load_related("davis2017", "video")
        (tmp_path / "DAVIS" / path).write_bytes(held)
    Image.new("L", (64, 64)).save(tmp_path / f"DAVIS/Annotations/480p/{names[0]}/00000.png")
    with pytest.raises(UserError, match="has no object to track"):
        run(task, load_related("davis2017", "video"), tmp_path / "none")
    (tmp_path / "DAVIS/SUBSET").unlink()
    with pytest.raises(UserError, match="30 were published"):
        load_related("davis2017", "video")
    with pytest.raises(UserError, match="temperature 0"):
        Tracking("davis2017", temperature=0)
