import pytest
from click.testing import CliRunner

from cgh_bench import tasks
from cgh_bench.cli import listing
from cgh_bench.core.errors import UserError
from cgh_bench.evaluate import configured, protocol_id
from cgh_bench.tasks import protocol_diff
from cgh_bench.tasks.detection import TASKS
from cgh_bench.tasks.protocol_diff import Difference
from cgh_bench.tasks.transfer import in_framework


def test_only_what_differs_is_a_difference():
    one = dict(protocol_diff._flat({"model": {"size": 3, "norms": {"BN": 2}}, "steps": 5}))
    other = dict(protocol_diff._flat({"model": {"size": 3, "norms": {"GN": 2}}, "steps": 6}))
    assert protocol_diff.differences([one, other]) == [
        Difference("model / norms / BN", (2, None)),
        Difference("steps", (5, 6)),
        Difference("model / norms / GN", (None, 2)),
    ]
    assert protocol_diff.differences([one, dict(one)]) == []


@pytest.mark.parametrize("name", [name for name in TASKS if f"{name}_detectron2" in TASKS])
def test_each_framework_has_an_id_of_its_own(name):
    assert in_framework(name, "detectron2") == f"{name}_detectron2"
    assert in_framework(f"{name}_detectron2", "mmdet") == name
    there, task, overridden = configured(name, ["framework=detectron2"])
    assert there == f"{name}_detectron2"
    assert (tasks.find(name).framework, task.framework) == ("mmdet", "detectron2")
    assert protocol_id(name, tasks.find(name)) != protocol_id(there, task)
    assert overridden == ()  # another protocol, not a changed one


def test_mmdets_ids_are_as_they_were():
    assert protocol_id("animals_det", tasks.find("animals_det")) == "animals_det@c34417e2"


def test_a_framework_that_cannot_be_chosen():
    with pytest.raises(UserError, match="did you mean detectron2"):
        configured("coco_det", ["framework=detectron"])
    with pytest.raises(UserError, match="unknown framework of voc_seg 'detectron2'; known: mmseg"):
        in_framework("voc_seg", "detectron2")
    with pytest.raises(UserError, match="animals_knn runs in no framework"):
        in_framework("animals_knn", "mmdet")


def test_published_detection_figures_are_detectron2s():
    from cgh_bench import published

    for protocol in ("voc_det", "coco_c4_1x", "coco_c4_2x", "coco_fpn_1x_moco", "coco_fpn_1x_infomin"):
        (follower,) = published.protocols()[protocol].tasks
        assert tasks.find(follower).framework == "detectron2"


def test_the_verb_prints_each_difference_and_counts_the_rest(monkeypatch):
    described = {
        "detectron2": {"steps": 5, "norm": "BN", "rate": 0.1},
        "mmdet": {"steps": 6, "norm": "BN", "rate": 0.1},
    }
    monkeypatch.setattr(protocol_diff, "facts", lambda name, framework="": described[framework])
    done = CliRunner().invoke(listing.protocol, ["diff", "coco_det"])
    assert done.stdout.splitlines() == [
        "steps",
        "    detectron2   5",
        "    mmdet        6",
        "coco_det: 1 differences; the other 2 facts are the same",
    ]
    shown = CliRunner().invoke(listing.protocol, ["show", "coco_det", "--framework", "mmdet"])
    assert shown.stdout.splitlines() == ["steps: 6", "norm: BN", "rate: 0.1"]
    alone = CliRunner().invoke(listing.protocol, ["diff", "coco_det", "--frameworks", "mmdet"])
    assert isinstance(alone.exception, UserError)
