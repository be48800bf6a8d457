"""Real detectron2: arrival, training, resuming, metrics; every protocol on its miniature.

Only sizes, counts, the schedule and the number of loaders are overridden, and that masks are read as run lengths.
"""

import dataclasses
import functools
import importlib
import itertools
import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch
from framework_models import import_here, run_here

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.converters.base import find as find_converter
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data import dense
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.evaluation import configured
from cgh_bench.foreign import frameworks, process
from cgh_bench.outcomes.detection import detection
from cgh_bench.reading.loading import load
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders

DETECTRON2 = frameworks.find("detectron2")
try:
    frameworks.require_installed("detectron2")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

SMALL = (
    "INPUT.MIN_SIZE_TRAIN=[96,128]",
    "INPUT.MIN_SIZE_TEST=96",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8",
    "MODEL.RPN.POST_NMS_TOPK_TEST=8",
    "DATALOADER.NUM_WORKERS=0",
    "TEST.PRECISE_BN.NUM_ITER=2",
)
MASKS = ("INPUT.MASK_FORMAT=bitmask",)
ITERATIONS = 6
ANIMALS = ("SOLVER.IMS_PER_BATCH=4", "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "scenes", miniatures.TINY)


@pytest.fixture(scope="module", autouse=True)
def fetched(scenes, tmp_path_factory):
    """`CGH_DATA` with COCO, VOC and Cityscapes in miniature, and few animal scenes."""
    root = tmp_path_factory.mktemp("data")
    miniatures.coco(scenes, root)
    miniatures.coco_keypoints(scenes, root)
    miniatures.voc(scenes, root)
    miniatures.cityscapes(scenes, root)
    entry = DetectionScenes("a few scenes", "embedded", functools.partial(write_scenes, settings=miniatures.TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "catalog", lambda: {"animal_scenes": entry})
        patch.setenv("CGH_DATA", str(root))
        yield root


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def resnet18():
    return random_checkpoint("resnet18")


@pytest.fixture(scope="module")
def resnet50():
    return random_checkpoint("resnet50")


def run(task, checkpoint, folder: Path, cache: Path) -> dict[str, float]:
    """Evaluate once on the data that the task names."""
    return task.run(checkpoint, task.load_data(cache), Folders(folder, cache), 0)


def shortened(name: str, *settings: str, iterations: int = ITERATIONS):
    return dataclasses.replace(find(name), iterations=iterations, settings=settings)


def read(path: Path):
    return json.loads(path.read_text())


def stopping_at(step: int):
    """In place of the progress bar: Ctrl-C after so many steps."""

    @contextmanager
    def interrupting(title, total):
        def tick(done, note=""):
            if done >= step:
                raise KeyboardInterrupt

        yield tick

    return interrupting


def test_it_arrives_trains_and_reports(resnet18, cache, tmp_path, monkeypatch):
    """In this process; `test_carried.py` and the slow tests start it as users do."""
    folder, weights, task = tmp_path / "run", tmp_path / "weights.pth", find("animals_det_detectron2")
    find_converter("detectron2").write(resnet18, weights)
    import_here("detectron2", monkeypatch)
    monkeypatch.setenv("CGH_DATA", str(task.load_data(cache).root))
    few = ("--iterations=2", "--set", "SOLVER.IMS_PER_BATCH=2", "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0")
    assert run_here("detectron2", "train", "animals_det", f"--weights={weights}", f"--work={folder}", *few) == 0
    assert {f"{kind}_{ap}" for kind in ("box", "mask") for ap in ("AP", "AP50", "AP75")} < set(
        read(folder / "metrics.json")
    )
    loaded = read(folder / "loaded.json")
    assert (loaded["given"], loaded["arrived"], loaded["missing"], loaded["unfilled"]) == (100, 100, [], [])
    lines = read(folder / "predictions.json")
    assert len(lines) == read(folder / "metrics.json")["detections"] > 0
    assert set(lines[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
    images = {image["id"] for image in read(cache / "animal_scenes/val/annotations.json")["images"]}
    assert {line["image_id"] for line in lines} <= images
    assert not list(folder.glob("state.pth"))
    assert not (folder / "evaluation").exists()
    versions = task.versions(Folders(folder, cache))
    assert versions["detectron2"]
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert [name for name in versions if "detectron2" in name]


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(resnet18, cache, tmp_path, monkeypatch):
    """In the default set, `test_transfer.py` holds it for mmsegmentation, and `test_foreign_together.py` each part."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    task = shortened("animals_det_detectron2", *ANIMALS)
    expected = run(task, resnet18, whole, cache)
    with monkeypatch.context() as patch:
        patch.setattr(process, "progress", stopping_at(2))
        with pytest.raises(KeyboardInterrupt):
            run(task, resnet18, folder, cache)
    stopped_at = torch.load(folder / "state.pth", weights_only=True)["trainer"]["iteration"]
    assert 2 <= stopped_at < ITERATIONS
    assert run(task, resnet18, folder, cache) == expected
    before, after = (torch.load(run / "model.pth", weights_only=True)["model"] for run in (whole, folder))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.slow
def test_the_last_stage_arrives_in_the_heads_or_the_run_fails(resnet50, cache, tmp_path):
    task = shortened("voc_det_detectron2", *SMALL, "SOLVER.IMS_PER_BATCH=2", "TRANSFER.WEIGHTS_INTO=[backbone]")
    with pytest.raises(CheckFailed, match=r"215 of 265 tensors arrived.*res5\.0"):
        run(task, resnet50, tmp_path / "run", cache)


SPOILING = """
import runpy, sys
runpy.run_path(sys.argv.pop(1))
from cgh_bench.transfer_configs.detectron2 import run, train
original = run.create_ddp_model
def spoil(model, **options):
    model.backbone.bottom_up.res3[0].conv1.weight.data.add_(1e-4)
    return original(model, **options)
run.create_ddp_model = spoil
sys.exit(train.main())
"""


@pytest.mark.slow
def test_a_tensor_that_is_changed_after_it_was_put_in_is_noticed(resnet18, cache, tmp_path):
    weights = tmp_path / "weights.pth"
    find_converter("detectron2").write(resnet18, weights)
    config = frameworks.protocol_file("detectron2", "animals_det")
    arguments = [f"--config={config}", f"--weights={weights}", f"--work={tmp_path}", "--iterations=2"]
    done = subprocess.run(
        [DETECTRON2.python, "-c", SPOILING, str(frameworks.LAUNCHER), *arguments],
        env={**DETECTRON2.environment, "CGH_DATA": str(find("animals_det_detectron2").load_data(cache).root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("the weights did not arrive: 1 of 100 tensors")
    assert read(tmp_path / "loaded.json")["missing"] == ["res3.0.conv1.weight"]
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("SOLVER.BASE_RL=1", "Non-existent key: SOLVER.BASE_RL"),
        ("SOLVER.OPTIMIZER=LARS", "expected SGD, or AdamW"),
    ],
)
def test_a_setting_that_is_wrong_is_told_in_a_line(resnet18, cache, tmp_path, setting, complaint):
    with pytest.raises(UserError, match=complaint) as told:
        run(shortened("animals_det_detectron2", setting), resnet18, tmp_path / "run", cache)
    assert "\n" not in str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("voc_det", "coco_det", "coco_det_2x", "coco_fpn", "coco_fpn_4conv1fc", "coco_retinanet", "cityscapes_inst"),
        *("coco_keypoints", "coco_keypoints_2x"),
    ],
)
def test_every_protocol_runs_on_its_data_sets_layout(name, resnet50, cache, tmp_path):
    masks = () if name == "voc_det" else MASKS
    task, _ = configured(name if "keypoints" in name else f"{name}_detectron2", ["iterations=2"])
    task = dataclasses.replace(task, settings=(*SMALL, *masks, "SOLVER.IMS_PER_BATCH=2"))
    metrics = run(task, resnet50, tmp_path / "run", cache)
    assert set(metrics) == {metric.name for metric in task.METRICS}
    loaded = read(tmp_path / "run" / "loaded.json")
    # 265 tensors and none of the 53 counters, which detectron2's files do not have.
    assert loaded["given"] == loaded["arrived"] == 265
    trained = torch.load(tmp_path / "run" / "model.pth", weights_only=True)["model"]
    saved = load(tmp_path / "run" / "model.pth")
    assert (saved.architecture, saved.preprocessing) == (resnet50.architecture, resnet50.preprocessing)
    if name == "cityscapes_inst":
        assert any(metric.startswith("mask_AP.") for metric in read(tmp_path / "run" / "metrics.json"))
    assert not Path("matches.json").exists()  # cityscapesScripts leaves it where it is run
    assert ("roi_heads.res5.norm.weight" in trained) == (name in ("voc_det", "coco_det", "coco_det_2x"))


@pytest.mark.slow
def test_the_running_mean_of_positives_is_of_a_dense_detectors_state(resnet50, cache, tmp_path, monkeypatch):
    """RetinaNet's loss is divided by it, and detectron2 keeps it beside the model's tensors.

    Bit for bit without torch's compiler, which from a process's third step on has another order of sums.
    """
    monkeypatch.setenv("PYTORCH_JIT", "0")
    task = shortened("coco_retinanet_detectron2", *SMALL, "SOLVER.IMS_PER_BATCH=2", iterations=4)
    whole = run(task, resnet50, tmp_path / "whole", cache)
    with monkeypatch.context() as patch:
        patch.setattr(process, "progress", stopping_at(2))
        with pytest.raises(KeyboardInterrupt):
            run(task, resnet50, tmp_path / "run", cache)
    assert torch.load(tmp_path / "run/state.pth", weights_only=True)["normalizer"] > 0
    assert run(task, resnet50, tmp_path / "run", cache) == whole
    trained, resumed = (
        torch.load(tmp_path / run / "model.pth", weights_only=True)["model"] for run in ("whole", "run")
    )
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in trained.items())


@pytest.mark.slow
def test_two_processes_share_the_batch(resnet18, cache, tmp_path, monkeypatch):
    """As on two GPUs, but over gloo."""
    monkeypatch.setenv("CGH_GPUS", "2")
    folder = tmp_path / "run"
    run(shortened("animals_det_detectron2", *ANIMALS), resnet18, folder, cache)
    assert read(folder / "loaded.json")["arrived"] == 100
    images = {line["image_id"] for line in read(folder / "predictions.json")}
    assert len(images) == miniatures.TINY.val_scenes


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_told_in_a_line(resnet18, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_GPUS", "3")
    with pytest.raises(UserError, match="8 images cannot be divided among 3 GPUs; use --gpus 1, 2, 4 or 8") as told:
        run(shortened("animals_det_detectron2"), resnet18, tmp_path / "run", cache)
    assert "SIGTERM" not in str(told.value)


@pytest.mark.slow
def test_a_step_in_parts(resnet18, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_IMAGES_AT_A_TIME", "2")
    metrics = run(shortened("animals_det_detectron2", *ANIMALS), resnet18, tmp_path / "run", cache)
    assert metrics["box_AP"] >= 0
    monkeypatch.setenv("CGH_IMAGES_AT_A_TIME", "3")
    with pytest.raises(UserError, match="8 images per process cannot be taken 3 at a time"):
        run(shortened("animals_det_detectron2"), resnet18, tmp_path / "other", cache)


@pytest.fixture(scope="module")
def told(fetched, tmp_path_factory):
    """detectron2 here, told of VOC, of a COCO whose val has other ids than its train, of persons and LVIS: the root."""
    root = tmp_path_factory.mktemp("told")
    (root / "VOCdevkit").symlink_to(fetched / "VOCdevkit")
    (root / "coco/annotations").mkdir(parents=True)
    for split in ("train", "val"):
        for name in (f"{split}2017", f"annotations/person_keypoints_{split}2017.json"):
            (root / "coco" / name).symlink_to(fetched / "coco" / name)
        truth = read(fetched / f"coco/annotations/instances_{split}2017.json")
        for item in (*truth["categories"], *truth["annotations"]) if split == "val" else ():
            key = "id" if "name" in item else "category_id"
            item[key] = 900 - item[key]
        (root / f"coco/annotations/instances_{split}2017.json").write_text(json.dumps(truth))
    with pytest.MonkeyPatch.context() as patch:
        import_here("detectron2", patch)
        patch.setenv("CGH_DATA", str(root))
        patch.setattr(np, "float", float, raising=False)  # which the evaluation on LVIS leaves behind
        data_sets = importlib.import_module("cgh_bench.transfer_configs.detectron2.data_sets")
        data_sets.register()
        yield root


def by_hand(name: str, work: Path, find, train: str = "", **kinds: bool) -> dict[str, float]:
    """The metrics of the detections that `find` makes of each image: boxes, classes, scores and perhaps keypoints."""
    from detectron2.data import DatasetCatalog
    from detectron2.structures import Boxes, Instances

    from cgh_bench.transfer_configs.detectron2 import evaluation

    if train:
        DatasetCatalog.get(train)  # in a run it is read first
    judge = evaluation.evaluator(name, work, **kinds)
    judge.reset()
    for image in DatasetCatalog.get(name):
        boxes, classes, scores, *points = find(image)
        found = Instances((image["height"], image["width"]))
        found.pred_boxes = Boxes(torch.tensor(boxes).float().reshape(-1, 4))
        found.pred_classes, found.scores = torch.tensor(classes).long(), torch.tensor(scores)
        if points:
            found.pred_keypoints = torch.tensor(points[0]).float().reshape(-1, 17, 3)
        judge.process([image], [{"instances": found}])
    return evaluation.flat(judge.evaluate(), work, name)


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y + height]


def test_voc_ap_has_eleven_points_and_passes_over_difficult_objects(told, tmp_path):
    """The first object of each class is found exactly: AP by hand from the XML files."""
    seen = set()

    def first_of_each_class(image):
        things = [t for t in image["annotations"] if t["category_id"] not in seen and not seen.add(t["category_id"])]
        return [t["bbox"] for t in things], [t["category_id"] for t in things], [1.0] * len(things)

    metrics = by_hand("voc/2007_test", tmp_path, first_of_each_class)
    objects = {name: hard for name, hard in objects_of_the_test(told).items() if not all(hard)}
    by_class = {name: 100 * eleven_points(hard) for name, hard in objects.items()}
    found = {name.removeprefix("box_AP."): value for name, value in metrics.items() if name.startswith("box_AP.")}
    assert found == pytest.approx(by_class), "a class without an object to find is left out, as in mmdetection"
    assert len(by_class) < 20
    expected = sum(by_class.values()) / len(by_class)
    assert [metrics[f"box_{ap}"] for ap in ("AP", "AP50", "AP75")] == pytest.approx([expected] * 3)
    assert expected > 5
    assert len(read(tmp_path / "predictions.json")) == metrics["detections"]
    curves = read(tmp_path / "curves.json")
    assert [100 * sum(curves[iou][::10]) / 11 for iou in ("0.5", "0.75")] == pytest.approx([expected] * 2, abs=0.01)


def test_classes_of_val_under_other_ids_are_known_by_their_names(told, tmp_path):
    """A perfect detector: numbered by the ids in each file, as detectron2 does, its classes would be wrong."""
    from detectron2.data import MetadataCatalog

    def everything(image):
        things = image["annotations"]
        return [corners(*t["bbox"]) for t in things], [t["category_id"] for t in things], [1.0] * len(things)

    metrics = by_hand("coco/val2017", tmp_path, everything, train="coco/train2017")
    truth = read(told / "coco/annotations/instances_val2017.json")
    used = {item["category_id"] for item in truth["annotations"]}
    names = {item["name"] for item in truth["categories"] if item["id"] in used}
    train, val = (MetadataCatalog.get(f"coco/{split}2017").thing_classes for split in ("train", "val"))
    assert metrics["box_AP"] == pytest.approx(100) and train == val
    assert {name for name in metrics if name.startswith("box_AP.")} == {f"box_AP.{name}" for name in names}


SIGMAS = (0.26, *[0.25] * 2, *[0.35] * 2, *[0.79] * 2, *[0.72] * 2, *[0.62] * 2, *[1.07] * 2, *[0.87] * 2, *[0.89] * 2)
"""Ten times the spread of annotators, https://cocodataset.org/#keypoints-eval."""


def test_keypoint_ap_is_that_of_similarities_by_hand(told, tmp_path):
    """The n-th object is found n pixels beside it."""
    places = itertools.count()

    def beside(image):
        boxes, scores, points = [], [], []
        for thing, place in zip(image["annotations"], places, strict=False):
            boxes.append(corners(*thing["bbox"]))
            scores.append(1 - 0.01 * place)
            points.append([value + place * (at % 3 == 0) for at, value in enumerate(thing["keypoints"])])
        return boxes, [0] * len(boxes), scores, points

    metrics = by_hand("coco_keypoints/val2017", tmp_path, beside, train="coco_keypoints/train2017", keypoints=True)
    truth = read(told / "coco/annotations/person_keypoints_val2017.json")
    objects = [line for image in truth["images"] for line in truth["annotations"] if line["image_id"] == image["id"]]
    spread = [(2 * line["area"]) * (2 * np.array(SIGMAS) / 10) ** 2 for line in objects]
    alike = np.array([np.exp(-(offset**2) / each).mean() for offset, each in enumerate(spread)])
    assert np.median(alike) > 0.5 and alike.min() < 0.5, "some are found and some are not"
    at = [100 * points_of_101(alike >= threshold) for threshold in np.arange(0.5, 1, 0.05)]
    found = [metrics[f"keypoint_{ap}"] for ap in ("AP", "AP50", "AP75")]
    assert found == pytest.approx([np.mean(at), at[0], at[5]])
    assert metrics["box_AP"] == pytest.approx(100)
    lines, annotations = tmp_path / "predictions.json", told / "coco/annotations/person_keypoints_val2017.json"
    kept = detection("val", "0", annotations, lines, ["keypoint_AP", "box_AP"])
    ones = np.ones((1, len(truth["images"])), int)
    assert [kept.measure(name, ones)[0] for name in ("keypoint_AP", "box_AP")] == pytest.approx([np.mean(at), 100])


def points_of_101(right: np.ndarray) -> float:
    """AP of detections, the surest first, that find one of as many objects or nothing."""
    true = right.cumsum()
    precision, recall = true / np.arange(1, len(right) + 1), true / len(right)
    return np.mean([max(precision[recall >= point - 1e-9], default=0) for point in np.linspace(0, 1, 101)])


def test_lvis_ap_asks_only_for_classes_that_were_looked_for(told, tmp_path):
    """A wrong detection of class 1 counts in the image where it is known to be absent, and in neither of two others."""
    objects = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1), (4, 3)]  # image, class
    box = {"bbox": [10, 10, 40, 40], "area": 1600, "segmentation": [[10, 10, 50, 10, 50, 50, 10, 50]]}
    images = [
        {
            **{"id": i, "width": 100, "height": 100, "coco_url": f"http://images.cocodataset.org/val2017/{i}.jpg"},
            "neg_category_ids": [1] if i == 2 else [],
            "not_exhaustive_category_ids": [1] if i == 3 else [],
        }
        for i in range(1, 5)
    ]
    truth = {
        "images": images,
        "annotations": [{"id": n, "image_id": i, "category_id": c, **box} for n, (i, c) in enumerate(objects, 1)],
        "categories": [{"id": i, "name": f"class {i}", "frequency": "rcf"[i % 3]} for i in range(1, 1204)],
    }
    (told / "coco/annotations/lvis_v1_val.json").write_text(json.dumps(truth))

    def everything_and_more(image):
        assert Path(image["file_name"]).parent.name == "val2017"
        things = [(corners(*thing["bbox"]), thing["category_id"], 0.5) for thing in image["annotations"]]
        if image["image_id"] > 1:
            things.append((corners(80, 80, 10, 10), 0, 0.9))  # nothing is there
        return map(list, zip(*things, strict=True))

    metrics = by_hand("lvis_v1/val", tmp_path, everything_and_more)
    mean = (200 / 3 + 100 + 100) / 3  # class 1: one wrong before two right; 2 of 5 if all three counted
    found = [metrics[f"box_{ap}"] for ap in ("AP", "AP50", "AP75", "APr", "APc", "APf")]
    assert found == pytest.approx([mean, mean, mean, 100, 200 / 3, 100])
    assert len(read(tmp_path / "predictions.json")) == metrics["detections"] == 9


@pytest.mark.usefixtures("told")
def test_heads_for_any_backbone_start_as_in_mmdetection():
    """mmdetection: Xavier (uniform) of 7 x 7 x 64 inputs and 256 outputs; Kaiming by the outputs, which are 1."""
    from detectron2.modeling import build_model

    from cgh_bench.transfer_configs.detectron2 import protocol

    heads = build_model(protocol.read(frameworks.protocol_file("detectron2", "animals_det_any"), [], 0, None)).roi_heads
    box, mask = (layer.weight.std().item() for layer in (heads.box_head.fc1, heads.mask_head.predictor))
    assert box == pytest.approx((2 / (7 * 7 * 64 + 256)) ** 0.5, rel=0.01)
    assert mask == pytest.approx(2**0.5, rel=0.3)


def objects_of_the_test(root: Path) -> dict[str, list[bool]]:
    """For each class, of its objects in the order of images: whether it is difficult."""
    from xml.etree import ElementTree

    found: dict[str, list[bool]] = {}
    devkit = root / "VOCdevkit/VOC2007"
    for name in (devkit / "ImageSets/Main/test.txt").read_text().split():
        for item in ElementTree.parse(devkit / f"Annotations/{name}.xml").iterfind("object"):
            found.setdefault(item.findtext("name"), []).append(item.findtext("difficult") == "1")
    return found


def eleven_points(difficult: list[bool]) -> float:
    """AP where only the first object is found: it is at precision 1 up to the recall of one object."""
    easy = difficult.count(False)
    if difficult[0] or not easy:
        return 0.0
    return sum(tenth / 10 <= 1 / easy + 1e-9 for tenth in range(11)) / 11
