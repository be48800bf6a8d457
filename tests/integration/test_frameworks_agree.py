"""The same protocol in detectron2 and mmdetection: both are built, and only differences that are known may be left."""

import json

import pytest
from framework_models import import_here, run_here

from cgh_bench.core.errors import UserError
from cgh_bench.tasks import transfer
from cgh_bench.tasks.detection import TASKS

pytest.importorskip("mmdet")
BOTH = [name for name in TASKS if f"{name}_detectron2" in TASKS]
RATE = "solver / learning rate / "
# mmdetection's linear warm-up ends a step early: its length counts both ends.
WARM_UP = {
    "voc_det": (1, 10, 99),
    "animals_det": (1, 10),
    "animals_det_any": (1, 10),
    "coco_det": (1, 10, 99, 100, 500, 999),
    "coco_vitdet": (1, 10, 99, 100),
}
NAIVE = {
    # The same on equal batches of each GPU; MoCo found less variance with the naive form, mmdetection has none.
    f"model / norm layers / {part} / {kind}"
    for part in ("backbone", "extra norm")
    for kind in ("NaiveSyncBatchNorm", "SyncBatchNorm")
}
OTHER = {
    "voc_det": NAIVE,
    "coco_det": NAIVE,
    "coco_det_2x": NAIVE,
    # mmdetection's FPN has the norm on P6 and P7 too, in place of their biases.
    "coco_retinanet": {
        "model / parameters / neck",
        "model / norm layers / neck / SyncBatchNorm",
        "solver / optimizer / values by weight decay / 0.0001",
        "solver / optimizer / values by weight decay / 0",
        "solver / optimizer / values by share of the learning rate / 1",
    },
    "animals_det": {
        # detectron2 gives every object an anchor, however bad, and no region below the threshold; neither is a setting.
        "model / RPN / least overlap of an object's best anchor",
        "model / regions / low overlaps match",
    },
    "coco_vitdet": {
        # detectron2 pads to squares of 1,024, not to a multiple; a crop of mmdetection leaves boxes without an area.
        "model / sides padded to multiples of",
        "data / training: further",
        # The norm of detectron2's heads is a class of its own, which its solver does not know as a norm.
        "model / norm layers / box head / ChannelNorm",
        "model / norm layers / mask head / ChannelNorm",
        "solver / optimizer / values by weight decay / 0.1",
        "solver / optimizer / values by weight decay / 0",
    },
}
OTHER["animals_det_any"] = OTHER["animals_det"]


@pytest.mark.parametrize(
    "name", [name if name == "animals_det" else pytest.param(name, marks=pytest.mark.slow) for name in BOTH]
)
def test_only_known_differences_are_left(name, monkeypatch, capsys):
    """In this process; that it is asked in one of its own, `test_tasks_transfer.py` holds."""
    described = []
    for framework in ("detectron2", "mmdet"):
        import_here(framework, monkeypatch)
        run_here(framework, "describe", name)
        described.append(transfer.flat(json.loads(capsys.readouterr().out.splitlines()[-1])))
    found = transfer.differences(described)
    rates = {fact: found.pop(fact) for fact in list(found) if fact.startswith(RATE)}
    assert set(rates) == {f"{RATE}{step}" for step in WARM_UP.get(name, WARM_UP["coco_det"])}
    for one, other in rates.values():
        assert one == pytest.approx(other, rel=0.06)
    assert set(found) == OTHER.get(name, set()), found
    assert len(described[0]) > 60


@pytest.mark.slow
def test_a_segmentation_protocol_is_described():
    facts = transfer.facts("ade20k_upernet")
    wanted = {
        "solver / steps": 160_000,
        "data / training: crop": [512, 512],
        "model / decode head / kind": "UPerHead",
        "model / decode head / classes": 150,
        "data / metric": "mean IoU",
    }
    assert {name: facts.get(name) for name in wanted} == wanted


def test_a_protocol_that_cannot_be_described_is_told():
    with pytest.raises(UserError, match="animals_knn"):
        transfer.facts("animals_knn")
