"""detectron2's protocol files as detectron2 reads them, value by value against their sources; the order of images."""

import itertools
import random
import sys

import pytest
from framework_models import import_here

from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks

try:
    frameworks.require_installed("detectron2")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

C4 = {  # facebookresearch/moco@f515ef4 detection/configs/Base-RCNN-C4-BN.yaml and *_moco.yaml
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "naiveSyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.MIN_SIZE_TEST": 800,
    "TEST.PRECISE_BN.ENABLED": True,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
}
VOC = C4 | {  # pascal_voc_R_50_C4_24k.yaml
    "MODEL.MASK_ON": False,
    "MODEL.ROI_HEADS.NUM_CLASSES": 20,
    "INPUT.MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "SOLVER.STEPS": [18000, 22000],
    "SOLVER.MAX_ITER": 24000,
    "SOLVER.WARMUP_ITERS": 100,
}
COCO_2X = C4 | {  # coco_R_50_C4_2x.yaml
    "MODEL.MASK_ON": True,
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "SOLVER.STEPS": [120000, 160000],
    "SOLVER.MAX_ITER": 180000,
}
FPN = {  # detectron2 v0.6 configs/Base-RCNN-FPN.yaml
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.STEPS": [60000, 80000],
    "SOLVER.MAX_ITER": 90000,
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
}
MOCO_FPN = FPN | {  # facebookresearch/moco issue 34
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": C4["MODEL.PIXEL_MEAN"],
    "MODEL.PIXEL_STD": C4["MODEL.PIXEL_STD"],
    "TEST.PRECISE_BN.ENABLED": True,
}
INFOMIN_FPN = MOCO_FPN | {  # HobbitLong/PyContrast@84f94ea pycontrast/detection/configs/R_50_FPN_1x.yaml
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
    "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
}
OCTAVES = [1, 2 ** (1 / 3), 2 ** (2 / 3)]
RETINANET = MOCO_FPN | {  # detectron2 v0.6 configs/Base-RetinaNet.yaml, with MoCo's norms
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.MASK_ON": False,
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[x * octave for octave in OCTAVES] for x in (32, 64, 128, 256, 512)],
    "MODEL.RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
    "MODEL.RETINANET.IOU_LABELS": [0, -1, 1],
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
    "SOLVER.BASE_LR": 0.01,
}
CITYSCAPES = MOCO_FPN | {  # detectron2 v0.6 configs/Cityscapes/mask_rcnn_R_50_FPN.yaml, without its start from COCO
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "INPUT.MASK_FORMAT": "bitmask",  # run lengths in mmdetection's JSON
    "INPUT.MIN_SIZE_TRAIN": [800, 832, 864, 896, 928, 960, 992, 1024],
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TRAIN": 2048,
    "INPUT.MAX_SIZE_TEST": 2048,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": [18000],
    "SOLVER.MAX_ITER": 24000,
    "SOLVER.IMS_PER_BATCH": 8,
}
VITDET = MOCO_FPN | {  # facebookresearch/detectron2@02b5c4e, the files that coco_vitdet.yaml names
    "MODEL.BACKBONE.NAME": "build_carried_backbone",
    "MODEL.RPN.CONV_DIMS": [-1, -1],
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "LN",
    "MODEL.ROI_MASK_HEAD.NORM": "LN",
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TEST": 1024,
    "DATALOADER.ASPECT_RATIO_GROUPING": False,
    "SOLVER.BASE_LR": 1e-4,
    "SOLVER.WEIGHT_DECAY": 0.1,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.MAX_ITER": 184375,
    "SOLVER.STEPS": [163889, 177546],
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_ITERS": 250,
    "SOLVER.AMP.ENABLED": True,
    "TEST.PRECISE_BN.ENABLED": False,
}
KEYPOINTS = MOCO_FPN | {  # detectron2 v0.6 configs/COCO-Keypoints/Base-Keypoint-RCNN-FPN.yaml, with MoCo's norms
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
}
LVIS = VITDET | {  # facebookresearch/detectron2@02b5c4e projects/ViTDet/configs/LVIS/mask_rcnn_vitdet_b_100ep.py
    "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.02,
    "TEST.DETECTIONS_PER_IMAGE": 300,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.001,
    "SOLVER.BASE_LR": 2e-4,
    "SOLVER.MAX_ITER": 156250,
    "SOLVER.STEPS": [138889, 150463],
}
COCO_1X = COCO_2X | {"SOLVER.STEPS": [60000, 80000], "SOLVER.MAX_ITER": 90000}
SOURCES = {
    "voc_det": VOC,
    "coco_det": COCO_1X,
    "coco_det_2x": COCO_2X,
    "coco_fpn": MOCO_FPN,
    "coco_fpn_4conv1fc": INFOMIN_FPN,
    "coco_retinanet": RETINANET,
    "coco_vitdet": VITDET,
    "cityscapes_inst": CITYSCAPES,
    "coco_keypoints": KEYPOINTS,
    "coco_keypoints_2x": KEYPOINTS | {"SOLVER.STEPS": [120000, 160000], "SOLVER.MAX_ITER": 180000},
    "lvis_vitdet": LVIS,
}
REFUSED = {
    "SOLVER.BASE_RL=1": "Non-existent key: SOLVER.BASE_RL",
    "DATALOADER.SAMPLER_TRAIN=RepeatFactorTrainingSampler": "--set DATALOADER.SAMPLER_TRAIN: it has no effect",
    "TEST.AUG.ENABLED=true": "--set TEST.AUG.ENABLED: it has no effect",
    "SOLVER.WARMUP_ITERS=soon": "Type mismatch",
}
OURS = ("TRANSFER.", "DATASETS.", "SOLVER.OPTIMIZER", "MODEL.DEVICE")


@pytest.fixture(scope="module", autouse=True)
def here():
    with pytest.MonkeyPatch.context() as patch:
        import_here("detectron2", patch)
        yield


def flat(node, path=""):
    if not isinstance(node, dict):
        return {path: node}
    return {k: v for key, child in node.items() for k, v in flat(child, f"{path}.{key}" if path else key).items()}


def read(name, *settings, iterations=None):
    from cgh_bench.transfer_configs.detectron2 import protocol

    return flat(protocol.read(frameworks.protocol_file("detectron2", name), list(settings), 0, iterations))


@pytest.mark.parametrize("name", SOURCES)
def test_a_protocol_is_its_source_over_the_defaults_and_nothing_else(name):
    from detectron2.config import get_cfg

    given, expected = read(name), flat(get_cfg()) | SOURCES[name]
    as_lists = {key: listed(given[key]) for key in given if not key.startswith(OURS)}
    differ = {key for key, value in as_lists.items() if value != listed(expected[key])}
    assert differ == set(), {key: (given[key], expected[key]) for key in differ}


def listed(value):
    return [listed(each) for each in value] if isinstance(value, list | tuple) else value


def test_a_stretched_schedule_keeps_its_proportions():
    keys = ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH")
    short, shortest = (read("coco_det", iterations=iterations) for iterations in (900, 2))
    half = read("coco_det", "SOLVER.IMS_PER_BATCH=8")
    assert [short[key] for key in keys] == [900, (600, 800), 10, 0.02, 16]
    assert [shortest[key] for key in keys] == [2, (1,), 1, 0.02, 16]
    assert [half[key] for key in keys] == [180000, (120000, 160000), 2000, 0.01, 8]


def test_batches_are_detectron2s_and_a_later_start_is_in_the_same_order():
    from detectron2.data.common import AspectRatioGroupedDataset
    from detectron2.data.samplers import TrainingSampler

    from cgh_bench.transfer_configs.detectron2.data_sets import Batches

    rng = random.Random(0)
    sizes = [{"index": i, "width": rng.choice([3, 5]), "height": 4} for i in range(50)]
    grouped = AspectRatioGroupedDataset((sizes[i] for i in TrainingSampler(50, seed=3)), 4)
    theirs = [[image["index"] for image in batch] for batch in itertools.islice(grouped, 40)]
    wide = [image["width"] > image["height"] for image in sizes]
    ours, later = (
        list(itertools.islice(Batches(TrainingSampler(50, seed=3), wide, 4, seen=seen), 40 - seen)) for seen in (0, 25)
    )
    assert ours == theirs
    assert later == ours[25:]


@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_that_is_wrong_is_refused(setting):
    with pytest.raises(SystemExit) as refused:
        read("coco_det", setting)
    assert REFUSED[setting] in str(refused.value)


def test_a_package_that_the_metric_needs_is_named_before_the_training(monkeypatch):
    from cgh_bench.transfer_configs.detectron2 import evaluation

    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(SystemExit, match="needs lvis; pip install lvis$"):
        evaluation.require_tools("lvis_v1/val")
