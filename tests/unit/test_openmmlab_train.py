"""The pieces of the mmengine process that need no run: configuration, batches, batch norm, random states."""

import ast
import copy
import dataclasses
import json
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as run_length

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from cgh_bench.foreign import failures, frameworks
from cgh_bench.transfer_configs.contract import processes
from cgh_bench.transfer_configs.openmmlab import batch, state, train  # first: it provides mmcv's operators
from cgh_bench.transfer_configs.openmmlab.detection_metric import InstanceAP
from cgh_bench.transfer_configs.openmmlab.precise_bn import PreciseBN
from cgh_bench.transfer_configs.openmmlab.segmentation_metric import SemanticIoU
from cgh_bench.transfer_configs.openmmlab.transfer import channel_order

from mmdet.datasets import CocoDataset  # isort: skip
from mmdet.models import DetDataPreprocessor  # isort: skip
from mmengine.config import Config  # isort: skip
from mmengine.model import BaseModel  # isort: skip
from mmengine.optim import OptimWrapper  # isort: skip
from mmseg.models import SegDataPreProcessor  # isort: skip

FOLDER = frameworks.find("mmdet").path
PROTOCOLS = sorted(FOLDER.glob("*.py"))


def box(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((40, 50), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return mask


@pytest.fixture
def truth(tmp_path):
    """Two images, three objects of two classes; category ids with a gap."""
    boxes = [(1, 7, [5, 5, 20, 20]), (1, 9, [30, 10, 15, 25]), (2, 7, [2, 3, 30, 30])]
    annotations = [
        {"id": i, "image_id": image, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        | {"segmentation": {"size": [40, 50], "counts": run_length.encode(box(*b))["counts"].decode()}}
        for i, (image, c, b) in enumerate(boxes, start=1)
    ]
    images = [{"id": i, "width": 50, "height": 40, "file_name": f"{i}.png"} for i in (1, 2)]
    categories = [{"id": 7, "name": "bear"}, {"id": 9, "name": "bird"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return tmp_path / "truth.json", boxes


def predicted(boxes, labels, scores):
    masks = [run_length.encode(box(*b)) for b in boxes]
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=np.float32).reshape(-1, 4)
    return {"bboxes": corners, "labels": np.array(labels), "scores": np.array(scores), "masks": masks}


def evaluate(truth_file: Path, work: Path, results) -> dict[str, float]:
    metric = InstanceAP(str(truth_file), str(work), masks=True)
    metric.dataset_meta = {"classes": ("bear", "bird")}
    return metric.compute_metrics([({}, {"img_id": image, **result}) for image, result in results])


def test_perfect_detections_have_ap_100(truth, tmp_path):
    file, boxes = truth
    results = [
        (1, predicted([boxes[0][2], boxes[1][2]], [0, 1], [0.9, 0.8])),
        (2, predicted([boxes[2][2]], [0], [0.7])),
    ]
    metrics = evaluate(file, tmp_path, results)
    assert [metrics[f"{kind}_AP"] for kind in ("box", "mask")] == pytest.approx([100, 100])
    assert (metrics["box_AP.bear"], metrics["mask_AP.bird"]) == pytest.approx((100, 100))
    assert metrics["detections"] == 3
    lines = json.loads((tmp_path / "predictions.json").read_text())
    assert [(line["image_id"], line["category_id"], line["bbox"]) for line in lines] == [
        (image, category, [float(v) for v in b]) for image, category, b in boxes
    ]


def test_classes_are_known_by_their_names_whatever_their_order_in_the_file(truth, tmp_path):
    """Perfect detections; mmdetection alone would number the classes by their place in the file."""
    file, boxes = truth
    document = json.loads(file.read_text())
    document["categories"].reverse()
    file.write_text(json.dumps(document))
    names = {"classes": ("bear", "bird")}
    data = CocoDataset(ann_file=str(file), metainfo=names, data_prefix={"img": ""}, pipeline=[], lazy_init=True)
    labels = [each["bbox_label"] for image in data.load_data_list() for each in image["instances"]]
    assert (data.cat_ids, labels) == ([7, 9], [0, 1, 0])
    first, second = ([b for image, _, b in boxes if image == number] for number in (1, 2))
    results = [(1, predicted(first, labels[:2], [0.9, 0.8])), (2, predicted(second, labels[2:], [0.7]))]
    metrics = evaluate(file, tmp_path, results)
    assert (metrics["box_AP"], metrics["mask_AP"]) == pytest.approx((100, 100))


def test_half_of_a_class_found_is_half_its_ap(truth, tmp_path):
    """One of two bears: precision 1 up to recall 1/2, that is 51 of COCO's 101 points; no bird."""
    file, boxes = truth
    metrics = evaluate(file, tmp_path, [(1, predicted([boxes[0][2]], [0], [0.9])), (2, predicted([], [], []))])
    assert metrics["box_AP.bear"] == pytest.approx(100 * 51 / 101)
    assert metrics["box_AP"] == pytest.approx(50 * 51 / 101)
    assert metrics["box_AP.bird"] == 0.0


def test_no_detections_at_all_are_ap_0(truth, tmp_path):
    file, _ = truth
    metrics = evaluate(file, tmp_path, [(1, predicted([], [], [])), (2, predicted([], [], []))])
    assert metrics["detections"] == 0
    assert {value for name, value in metrics.items()} == {0.0}
    assert (tmp_path / "predictions.json").read_text() == "[]"


def test_iou_by_hand(tmp_path):
    metric = SemanticIoU(work=str(tmp_path))
    metric.dataset_meta = {"classes": ("ground", "bear", "bird", "cow")}
    guess = torch.tensor([[0, 0, 1], [1, 1, 2]])
    real = torch.tensor([[0, 1, 1], [1, 255, 1]])  # 255 is ignored; there is no bird and no cow
    metrics = metric.compute_metrics([SemanticIoU.intersect_and_union(guess, real, 4, 255)])
    assert metrics["IoU.ground"] == pytest.approx(100 / 2)
    assert metrics["IoU.bear"] == pytest.approx(100 * 2 / 4)
    assert metrics["IoU.bird"] == 0.0
    assert "IoU.cow" not in metrics
    assert metrics["mIoU"] == pytest.approx(100 * (1 / 2 + 1 / 2 + 0) / 3)
    assert metrics["aAcc"] == pytest.approx(100 * 3 / 5)


@pytest.mark.parametrize("images_at_a_time", [None, 2])
def test_precise_statistics_are_means_over_batches_or_their_parts(images_at_a_time):
    generator = torch.Generator().manual_seed(0)
    batches = [3 * torch.randn(4, 2, 5, 5, generator=generator) + i for i in range(6)]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(2)
            self.frozen = torch.nn.BatchNorm2d(2).requires_grad_(False)

        def data_preprocessor(self, batch, training):
            assert training
            return batch

        def train(self, mode=True):
            super().train(mode)
            self.frozen.eval()
            return self

        def forward(self, inputs, mode):
            assert mode == "loss"
            return self.frozen(self.norm(inputs))

    model, loop = Model(), SimpleNamespace(dataloader_iterator=iter([{"inputs": batch} for batch in batches]))
    if images_at_a_time:
        loop.images_at_a_time = images_at_a_time
    PreciseBN(iterations=4).after_train(SimpleNamespace(model=model, train_loop=loop))
    used = torch.stack(batches[:4]).double().reshape(-1, images_at_a_time or 4, 2, 5, 5)  # part, image, channel, y, x
    torch.testing.assert_close(model.norm.running_mean.double(), used.mean((0, 1, 3, 4)), rtol=1e-5, atol=1e-5)
    variances = torch.stack([b.transpose(0, 1).flatten(1).var(1) for b in used]).mean(0)
    torch.testing.assert_close(model.norm.running_var.double(), variances, rtol=1e-5, atol=1e-5)
    assert model.norm.momentum == 0.1
    assert not model.frozen.running_mean.any()


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_is_whole(path):
    """It inherits from no file but ours and downloads nothing; its schedule ends with its training."""
    config = Config.fromfile(path)
    (base,) = re.findall(r"^_base_ = (.*)$", path.read_text(), re.MULTILINE) or [None]
    assert base is None or ast.literal_eval(base) in {known.name for known in PROTOCOLS}
    assert "Pretrained" not in path.read_text()
    assert config.batch_size == config.train_dataloader.batch_size
    assert config.train_cfg.max_iters == config.iterations
    assert {s.end for s in config.param_scheduler if s.type != "LinearLR"} == {config.iterations}
    backbone = config.model.backbone
    restated = {
        "ResNet": {"depth", "deep_stem", "style", "frozen_stages", "norm_cfg", "norm_eval", "init_cfg"},
        "Carried": {"architecture", "drop_path", "frozen"},
    }
    assert restated[backbone.type] <= set(backbone)
    assert {"mean", "std", "bgr_to_rgb"} <= set(config.model.data_preprocessor)


def test_what_is_inherited_is_part_of_the_definition(tmp_path, monkeypatch):
    for name in ("coco_fpn", "coco_fpn_4conv1fc"):
        (tmp_path / f"{name}.py").write_text((FOLDER / f"{name}.py").read_text())
    monkeypatch.setattr(frameworks.Framework, "path", tmp_path)
    before = [frameworks.definition("mmdet", name) for name in ("coco_fpn", "coco_fpn_4conv1fc")]
    base = tmp_path / "coco_fpn.py"
    base.write_text(base.read_text().replace('"lr": 0.02', '"lr": 0.03'))
    after = [frameworks.definition("mmdet", name) for name in ("coco_fpn", "coco_fpn_4conv1fc")]
    assert len({*before, *after}) == 4


def test_a_stretched_schedule_keeps_its_proportions():
    config = Config.fromfile(FOLDER / "coco_det.py")
    train.reschedule(config, 900)
    warmup, steps = config.param_scheduler
    assert (warmup.begin, warmup.end) == (0, 10)
    assert (steps.milestones, steps.end) == ([600, 800], 900)
    assert (config.train_cfg.max_iters, config.train_cfg.val_interval) == (900, 901)
    train.reschedule(config, 2)
    assert warmup.end > warmup.begin


def test_settings_must_exist():
    config = Config.fromfile(FOLDER / "coco_det.py")
    train.require_known(config, "train_dataloader.dataset.pipeline.1.poly2mask")
    for wrong in ("optim_wrapper.optimizer.rl", "train_dataloader.dataset.pipeline.9.x", "batch_size.x"):
        with pytest.raises(SystemExit, match=r"no .* in the protocol"):
            train.require_known(config, wrong)


def test_lists_on_the_command_line_become_the_tuples_that_the_framework_needs(tmp_path):
    place = "test_dataloader.dataset.pipeline.1.scale"
    scales = "train_dataloader.dataset.pipeline.2.scales"
    config = train.protocol(options(tmp_path, settings={place: [160, 120], scales: [[160, 120], [80, 60]]}))
    assert config.test_dataloader.dataset.pipeline[1].scale == (160, 120)
    assert config.train_dataloader.dataset.pipeline[2].scales == [(160, 120), (80, 60)]
    for wrong in ({place: [160]}, {place: 160}, {scales: [[160, 120], [80, 60, 3]]}):
        with pytest.raises(SystemExit, match="expected two values, as in the protocol's"):
            train.protocol(options(tmp_path, settings=wrong))


def test_a_module_that_is_absent_is_named(tmp_path, monkeypatch):
    """mmengine's own error names the module that the protocol imports, not the one that this lacks."""
    (tmp_path / "lacking.py").write_text("import no_such_package\n")
    text = (FOLDER / "coco_det.py").read_text().replace("cgh_bench.transfer_configs.openmmlab.extra_norm", "lacking")
    (tmp_path / "yours.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        train.protocol(options(tmp_path, config=tmp_path / "yours.py"))


@pytest.mark.parametrize(
    ("setting", "instead"), [("train_dataloader.batch_size", "batch_size"), ("train_cfg.max_iters", "iterations")]
)
def test_a_setting_that_would_leave_the_schedule_as_it_is_is_refused(setting, instead):
    with pytest.raises(SystemExit, match=rf"{setting}: .*; use {instead}, which"):
        train.require_known(Config.fromfile(FOLDER / "voc_seg.py"), setting)


@pytest.mark.parametrize("setting", ["iterations", "norm.type", "data_root", "crop"])
def test_a_setting_that_nothing_reads_is_refused(setting):
    with pytest.raises(SystemExit, match=rf"{setting}: it has no effect"):
        train.require_known(Config.fromfile(FOLDER / "voc_seg.py"), setting)


def test_every_download_is_removed():
    pretrained = {"type": "Pretrained", "checkpoint": "torchvision://resnet50"}
    head = {"shared_head": {"init_cfg": dict(pretrained)}, "convs": [{"init_cfg": dict(pretrained)}]}
    config = Config(
        {"model": {"init_cfg": dict(pretrained), "roi_head": head, "neck": {"init_cfg": {"type": "Xavier"}}}}
    )
    train.drop_pretrained(config._cfg_dict)
    assert config.model.init_cfg is None
    assert config.model.roi_head.shared_head.init_cfg is None
    assert config.model.roi_head.convs[0].init_cfg is None
    assert config.model.neck.init_cfg.type == "Xavier"


def options(work: Path, **changes) -> SimpleNamespace:
    given = {"config": FOLDER / "coco_det.py", "data": None, "settings": {}, "gpus": 1, "images_at_a_time": None}
    return SimpleNamespace(**{**given, "iterations": None, "work": work, "seed": 3, **changes})


def command_line(monkeypatch, work: Path, *more: str) -> None:
    """Have `train.main` run coco_det."""
    given = [f"--config={FOLDER / 'coco_det.py'}", "--weights=none.pth", f"--work={work}"]
    monkeypatch.setattr(sys, "argv", ["openmmlab.train", *given, *more])


def test_the_batch_of_a_step_is_divided_among_gpus(tmp_path):
    config = train.protocol(options(tmp_path, gpus=8))
    assert config.train_dataloader.batch_size == 2
    assert config.optim_wrapper.optimizer.lr == 0.02
    assert config.randomness.seed == 3
    with pytest.raises(SystemExit, match="16 images cannot be divided among 5 GPUs"):
        train.protocol(options(tmp_path, gpus=5))


def test_a_batch_that_cannot_be_divided_starts_no_processes(tmp_path, monkeypatch):
    """With several processes each would say so, and the launcher that it has ended them."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    command_line(monkeypatch, tmp_path, "--gpus=3")
    monkeypatch.setattr(processes.os, "execv", lambda *_: pytest.fail("it was launched"))
    with pytest.raises(SystemExit, match="16 images cannot be divided among 3 GPUs; use --gpus 1, 2, 4, 8 or 16"):
        train.main()


def test_fewer_images_at_a_time_leave_the_protocol_as_it_is(tmp_path):
    whole, parts = (train.protocol(options(tmp_path, gpus=2, images_at_a_time=n)) for n in (8, 3))
    assert whole.train_cfg.type == "IterBasedTrainLoop"
    assert (parts.train_cfg.type, parts.train_cfg.images_at_a_time) == ("TrainInParts", 3)
    del parts.train_cfg["images_at_a_time"]
    parts.train_cfg.type = whole.train_cfg.type
    assert parts.to_dict() == whole.to_dict()


@pytest.mark.parametrize("at_a_time", [1, 3, 5])
def test_a_single_image_that_a_norm_cannot_do_with_is_refused(tmp_path, at_a_time):
    """With 16 images, 3 or 5 at a time leave one."""
    pooling = {"config": FOLDER / "ade20k_upernet.py", "images_at_a_time": at_a_time}
    with pytest.raises(SystemExit, match="UPerHead pools an image to one value, .* use --images-at-a-time 2"):
        train.protocol(options(tmp_path, **pooling))
    train.protocol(options(tmp_path, gpus=2, **pooling | {"images_at_a_time": 1}))
    train.protocol(options(tmp_path, **pooling | {"images_at_a_time": 2}))
    train.protocol(options(tmp_path, **pooling | {"config": FOLDER / "voc_seg.py"}))


def test_another_batch_takes_learning_rate_and_schedule_with_it(tmp_path):
    config = train.protocol(options(tmp_path, settings={"batch_size": 4}))
    assert config.train_dataloader.batch_size == 4
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.02 / 4)
    assert config.train_cfg.max_iters == 4 * 90_000
    assert config.param_scheduler[0].end == 4_000
    assert config.param_scheduler[1].milestones == [240_000, 320_000]
    short = train.protocol(options(tmp_path, settings={"batch_size": 4}, iterations=900))
    assert (short.train_cfg.max_iters, short.optim_wrapper.optimizer.lr) == (900, pytest.approx(0.02 / 4))


@pytest.mark.parametrize("wrong", [0, -8, "many", 2.5])
def test_a_batch_is_a_number_of_images(tmp_path, wrong):
    with pytest.raises(SystemExit, match=f"the batch size is {wrong!r}; it must be a positive integer"):
        train.protocol(options(tmp_path, settings={"batch_size": wrong}))


@pytest.mark.parametrize(("images", "fewer"), [(16, 8), (9, 3), (5, 1)])
def test_memory_that_is_short_suggests_a_part(images, fewer):
    """One that divides the share of a process, as detectron2's parts must."""
    assert processes.out_of_memory(images).endswith(f"use --images-at-a-time {fewer}")
    assert "smaller images" in processes.out_of_memory(1)


def test_a_gpu_without_memory_ends_the_run_with_the_number_to_try(tmp_path, monkeypatch):
    def from_cfg(config):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(train, "Runner", SimpleNamespace(from_cfg=from_cfg))
    command_line(monkeypatch, tmp_path, "--gpus=1")
    with pytest.raises(SystemExit) as raised:
        train.main()
    said = str(raised.value)
    assert said.startswith("OutOfMemoryError: 16 images") and said.endswith("use --images-at-a-time 8")
    assert failures.reason(f"iteration 7\n{said}\n") == said


class Network(BaseModel):
    """A mean squared error over images, without BatchNorm."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))

    def forward(self, inputs, data_samples=None, mode="loss"):
        assert mode == "loss"
        return {
            "loss_squares": (self.layers(torch.stack(inputs)).squeeze(1) - torch.stack(data_samples)).square().mean()
        }


@pytest.mark.parametrize("images_at_a_time", [1, 3, 4, 8])
def test_gradients_of_parts_add_up_to_that_of_the_batch(images_at_a_time):
    """Also where the last part is smaller; with clipping, momentum and several steps."""
    torch.manual_seed(0)
    whole = Network().double()
    parts = copy.deepcopy(whole)
    wrappers = [
        OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), clip_grad={"max_norm": 0.5})
        for model in (whole, parts)
    ]
    for _ in range(3):
        images = {"inputs": list(torch.randn(8, 3).double()), "data_samples": list(torch.randn(8).double())}
        expected = whole.train_step(images, wrappers[0])
        given = batch.step_in_parts(parts, wrappers[1], images, images_at_a_time)
        torch.testing.assert_close(given["loss"], expected["loss"].detach())
        assert set(given) == set(expected)
        for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_random_states_survive_a_file(tmp_path):
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    @dataclasses.dataclass
    class Runner:
        model = network
        optim_wrapper = optimizer
        param_schedulers = ()
        max_iters = 5
        train_loop = SimpleNamespace(_iter=0)

    optimizer.initialize_count_status = lambda *_: None
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    state.save(Runner(), 3, tmp_path / "state.pth")
    expected = random.random(), np.random.rand(), torch.rand(1)
    saved = state.load(tmp_path / "state.pth")
    state.restore(Runner(), saved)
    state.restore_torch_random(saved)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert Runner.train_loop._iter == 3


@pytest.mark.parametrize("kind", [DetDataPreprocessor, SegDataPreProcessor])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_order_of_channels_is_found_out_by_preparing_an_image(kind, order):
    preprocessor = kind(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=order == "RGB")
    assert channel_order(preprocessor) == order
