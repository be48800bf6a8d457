from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from cgh_bench.core.descent import Cosine, Steps
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages, ImageSet
from cgh_bench.data.transform import Crop
from cgh_bench.frozen.crops import Batch, Batches
from cgh_bench.frozen.training import Course, Record, train

CPU = torch.device("cpu")


def pictures(n: int = 10) -> GreyImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 20, 24), dtype=np.uint8)
    return GreyImages("toy/train", ("a", "b"), np.arange(n) % 2, "f", pixels)


def batches(images: ImageSet, size: int = 4, seed: int = 0, rows: np.ndarray | None = None) -> Batches:
    return Batches(images, np.arange(len(images)) if rows is None else rows, Crop(8), size, seed)


@pytest.mark.parametrize(
    ("schedule", "epochs", "golden"),
    [
        # MoCo: 30 until epoch 60, 3 until 80, then 0.3.
        (Steps((60, 80)), 100, {0: 30, 59.99: 30, 60: 3, 79.5: 3, 80: 0.3, 99.9: 0.3}),
        # SwAV fine-tuning: times 0.2 at 12 and 16 of 20.
        (Steps((12, 16), 0.2), 20, {0: 30, 11.9: 30, 12: 6, 16.5: 1.2}),
        # torch's CosineAnnealingLR stepped at every iteration, and at every epoch.
        (Cosine("step"), 100, {0: 30, 0.5: 29.998149, 25: 25.606602, 50: 15, 99.5: 0.00185051}),
        (Cosine("epoch"), 100, {0: 30, 0.9: 30, 1.0: 29.992599, 25.9: 25.606602, 50.5: 15, 99.9: 0.00740159}),
    ],
)
def test_golden_rates(schedule: Steps | Cosine, epochs: int, golden: dict[float, float]) -> None:
    assert {epoch: 30 * schedule.at(epoch, epochs) for epoch in golden} == pytest.approx(golden, rel=1e-5)


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_the_cosine_is_torchs(per: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    length = 5 if per == "epoch" else 5 * 4
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)
    for step in range(20):
        assert 0.3 * Cosine(per).at(step / 4, 5) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if per == "step" or step % 4 == 3:
            scheduler.step()


def test_an_epoch_has_each_image_once_in_an_order_of_its_own() -> None:
    images = pictures()
    marked = GreyImages("toy", tuple("abcdefghij"), np.arange(10), "f", images.pixels)
    seen = [[int(label) for batch in batches(marked).epoch(e, CPU) for label in batch.labels] for e in (0, 1, 0)]
    assert [sorted(labels) for labels in seen] == [list(range(10))] * 3
    assert seen[0] == seen[2] != seen[1]
    assert [batch.total for batch in batches(marked).epoch(0, CPU)] == [4, 4, 2]
    assert len(batches(marked)) == 3
    other = [int(label) for batch in batches(marked, seed=1).epoch(0, CPU) for label in batch.labels]
    assert other != seen[0]


def test_a_lone_last_image_sits_out() -> None:
    marked = batches(pictures(9))
    assert [batch.total for batch in marked.epoch(0, CPU)] == [4, 4]
    assert len(marked) == 2
    assert [batch.total for batch in batches(pictures(1)).epoch(0, CPU)] == [1]


def test_crops_are_torchvisions_and_depend_on_image_and_epoch_alone() -> None:
    images = pictures()
    by_label: list[dict[int, torch.Tensor]] = []
    marked = GreyImages("toy", tuple("abcdefghij"), np.arange(10), "f", images.pixels)
    for size, epoch in ((4, 0), (3, 0), (4, 1)):
        found = {}
        for batch in batches(marked, size).epoch(epoch, CPU):
            found |= dict(zip(batch.labels.tolist(), batch.images, strict=True))
        by_label.append(found)
    whole = set(by_label[0]) & set(by_label[1])
    assert all(torch.equal(by_label[0][label], by_label[1][label]) for label in whole)
    assert not any(torch.equal(by_label[0][label], by_label[2][label]) for label in whole)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    ours = Crop(8, (0.2, 0.9))(images.image(0))
    torch.manual_seed(5)
    theirs = v2.RandomHorizontalFlip()(v2.RandomResizedCrop(8, (0.2, 0.9), antialias=True)(images.image(0)))
    torch.set_rng_state(state)
    torch.testing.assert_close(ours, theirs / 255)


class Unreadable(GreyImages):
    def image(self, index: int) -> torch.Tensor:
        if index == 3:
            raise UserError("cannot decode cat.jpg")
        return super().image(index)


def test_an_unreadable_image_is_named() -> None:
    images = pictures()
    broken = Unreadable("toy", images.classes, images.labels, "f", images.pixels)
    with pytest.raises(UserError, match=r"^cannot decode cat\.jpg$"):
        list(batches(broken).epoch(0, CPU))


class Elapsed:
    """A schedule that tells the learner the epoch."""

    def at(self, epoch: float, epochs: int) -> float:
        return epoch


class Counter:
    """A learner whose whole state is a sum of pixels."""

    def __init__(self, stop_at: int | None = None, loss: float = 0.0) -> None:
        self.sum, self.epochs, self.stop_at, self.loss = torch.zeros(()), 0, stop_at, loss

    def learn(self, batch: Batch, epoch: float) -> float:
        if self.stop_at is not None and epoch >= self.stop_at:
            raise KeyboardInterrupt
        self.sum += batch.images.sum() * (1 + epoch)
        return self.loss

    def assess(self) -> Record:
        return {"sum": float(self.sum)}

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.sum = torch.zeros(()).copy_(state["sum"])


def course(folder: Path, identity: str = "i") -> Course:
    return Course("toy", 4, Elapsed(), identity, folder / "state.pt", CPU)


def test_interrupted_is_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole = train(Counter(), batches(pictures()), course(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        train(Counter(stop_at=2), batches(pictures()), course(tmp_path / "b"))
    assert train(Counter(), batches(pictures()), course(tmp_path / "b")) == whole
    assert train(Counter(stop_at=0), batches(pictures()), course(tmp_path / "b")) == whole
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["state.pt"]


def test_the_state_of_another_training_is_not_continued(tmp_path: Path) -> None:
    train(Counter(), batches(pictures(), seed=1), course(tmp_path, "other"))
    fresh = train(Counter(), batches(pictures()), course(tmp_path / "fresh"))
    assert train(Counter(), batches(pictures()), course(tmp_path)) == fresh


ODD = {
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.ones((), device="meta"),
    "NaN": torch.tensor(torch.nan),
    "shape": torch.ones(2),
    "text": "text",
}


@pytest.mark.parametrize("keep", [0, 1, 100, -100, *ODD])
def test_a_state_that_is_damaged_is_said(tmp_path: Path, keep: int | str) -> None:
    """By a disk: it is written whole or not at all."""
    train(Counter(), batches(pictures()), course(tmp_path))
    state = tmp_path / "state.pt"
    if isinstance(keep, str):
        torch.save({"identity": "i", "history": [], "learner": {"sum": ODD[keep]}}, state)
    else:
        state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(
        UserError, match=r"^.*state\.pt is damaged or .*; remove it, and training starts again$"
    ) as caught:
        train(Counter(), batches(pictures()), course(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops(tmp_path: Path, loss: float) -> None:
    with pytest.raises(UserError, match=r"not finite in epoch 1 \(step 1\); lower the learning rates"):
        train(Counter(loss=loss), batches(pictures()), course(tmp_path))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"area": (0.0, 1.0)}, {"area": (0.9, 0.1)}, {"mirrored": 2.0}])
def test_impossible_crops(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="size must be at least 1"):
        Crop(**{"size": 8, **wrong})
