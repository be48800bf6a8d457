"""Every protocol of OpenMMLab on data of the user's own: classes of every head, images through its pipeline."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dense_folder
import own_folders
import pytest

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmengine.registry import DATASETS, init_default_scope

from cgh_bench.core.registry import registered
from cgh_bench.data.own import find
from cgh_bench.foreign import frameworks
from cgh_bench.tasks.transfer import Transfer
from cgh_bench.transfer_configs.openmmlab import train

QUICK = ("voc_det", "ade20k_upernet")  # the others are `slow`
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name, task in registered("cgh_bench.tasks", "TASKS").items()
    if isinstance(task, Transfer) and task.framework != "detectron2"
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The description of data of each kind: three classes of objects, four of pixels."""
    folder = tmp_path_factory.mktemp("own")
    made = {"objects": own_folders.coco(folder / "coco"), "maps": dense_folder.write(folder / "masks")}
    return {kind: find.locate(str(place), kind, folder / "cache").file for kind, place in made.items()}


def heads(node: Any) -> Iterator[int]:
    """Every head's number of classes."""
    if isinstance(node, dict) and "num_classes" in node:
        yield node["num_classes"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from heads(child)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_takes_the_users_classes_and_images(name: str, described: dict[str, Path]) -> None:
    task = registered("cgh_bench.tasks", "TASKS")[name]
    file = frameworks.protocol_file(task.framework, task.protocol)
    given = {
        "data": described[task.ANNOTATED],
        "settings": {},
        "weights": None,
        "work": Path(),
        "images_at_a_time": None,
    }
    config = train.protocol(argparse.Namespace(config=file, iterations=None, gpus=0, seed=0, **given))
    maps = task.ANNOTATED == "maps"
    assert set(heads(config.model)) == {4 if maps else 3}
    assert config.test_evaluator.type == ("SemanticIoU" if maps else "InstanceAP")
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == 8 and list(dataset.metainfo["classes"]) == list(
        dense_folder.CLASSES if maps else own_folders.CLASSES
    )
    sample = dataset[0]["data_samples"]
    if maps:
        assert set(sample.gt_sem_seg.data.unique().tolist()) <= {0, 1, 2, 3, 255}
    else:
        assert len(sample.gt_instances) + len(sample.ignored_instances) > 0
    val = DATASETS.build(config.test_dataloader.dataset)
    assert len(val) == (3 if maps else 4) and val[0]["data_samples"].img_path
