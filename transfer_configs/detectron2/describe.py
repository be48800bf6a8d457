"""Print what a protocol builds in detectron2, as a line of JSON: network, solver, data and metric as they take effect.

python -m cgh_bench.transfer_configs.detectron2.describe --config coco_det.yaml [--set K=V …]
"""

import json
from typing import Any

from detectron2.config import CfgNode
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler

from cgh_bench.transfer_configs.contract import facts, processes
from cgh_bench.transfer_configs.detectron2 import data_sets, protocol
from cgh_bench.transfer_configs.detectron2.data_sets import augmentations
from cgh_bench.transfer_configs.detectron2.solver import optimizer

PARTS = (
    ("roi_heads.res5.norm", "extra norm"),
    ("roi_heads.res5", facts.BACKBONE),
    ("roi_heads.mask", "mask head"),
    ("roi_heads.keypoint", "keypoint head"),
    ("roi_heads", "box head"),
    ("proposal_generator", "RPN"),
    ("head", "box head"),
    ("backbone.fpn", "neck"),
    ("backbone.top_block", "neck"),
    ("backbone", facts.BACKBONE),
)
METRICS = {
    "coco": "COCO, 101 points",
    "coco_keypoints": "COCO, 101 points",
    "lvis_v1": "LVIS, 101 points",
    "animal_scenes": "COCO, 101 points",
    "voc": "VOC 2007, 11 points",
    "cityscapes": "Cityscapes",
}


def main() -> None:
    """Build and print."""
    options = processes.parser(__doc__, default=[]).parse_args()
    config = protocol.read(options.config, options.settings, 0, options.iterations)
    data_sets.register()  # LVIS's loss asks for the frequencies of classes
    model = build_model(config).train()
    described = {
        "model": describe_network(config, model),
        "solver": describe_solver(config, model),
        "data": describe_data(config),
    }
    print(json.dumps(described))


def describe_network(config: CfgNode, model: Any) -> dict[str, Any]:
    """The network."""
    return {
        **facts.model_facts(model, PARTS),
        "channels": model.input_format,
        "mean": [round(value, 3) for value in model.pixel_mean.flatten().tolist()],
        "std": [round(value, 3) for value in model.pixel_std.flatten().tolist()],
        "sides padded to multiples of": max(1, model.backbone.size_divisibility),
        **(
            {"dense head": describe_dense_head(model)}
            if config.MODEL.META_ARCHITECTURE == "RetinaNet"
            else {"RPN": describe_rpn(model.proposal_generator), "regions": describe_regions(config, model.roi_heads)}
        ),
    }


def describe_dense_head(model: Any) -> dict[str, Any]:
    """A one-stage detector."""
    generator = model.anchor_generator
    low, high = model.anchor_matcher.thresholds[1:-1]
    return {
        "anchors": facts.anchor_facts(dict(zip(generator.strides, generator.cell_anchors, strict=True))),
        "overlap of negatives, positives": [low, high],
        "least overlap of an object's best anchor": 0.0 if model.anchor_matcher.allow_low_quality_matches else high,
        "classes": model.num_classes,
        "focal loss: gamma, alpha": [model.focal_loss_gamma, model.focal_loss_alpha],
        "box weights": list(model.box2box_transform.weights),
        "box loss": _box_loss(model.box_reg_loss_type, model.smooth_l1_beta, 1.0),
        "test: before NMS per level": model.test_topk_candidates,
        "test: score, overlap of NMS, detections": [
            model.test_score_thresh,
            model.test_nms_thresh,
            model.max_detections_per_image,
        ],
    }


def describe_rpn(rpn: Any) -> dict[str, Any]:
    """The region proposals."""
    generator = rpn.anchor_generator
    low, high = rpn.anchor_matcher.thresholds[1:-1]
    return {
        "anchors": facts.anchor_facts(dict(zip(generator.strides, generator.cell_anchors, strict=True))),
        "overlap of negatives, positives": [low, high],
        "least overlap of an object's best anchor": 0.0 if rpn.anchor_matcher.allow_low_quality_matches else high,
        "anchors per image, share of positives": [rpn.batch_size_per_image, rpn.positive_fraction],
        "before NMS per level, training and test": [rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]],
        "after NMS, training and test": [rpn.post_nms_topk[True], rpn.post_nms_topk[False]],
        "overlap of NMS": rpn.nms_thresh,
        "box loss": _box_loss(rpn.box_reg_loss_type, rpn.smooth_l1_beta, rpn.loss_weight["loss_rpn_loc"]),
    }


def describe_regions(config: CfgNode, roi: Any) -> dict[str, Any]:
    """The heads on regions."""
    predictor, matcher = roi.box_predictor, roi.proposal_matcher
    pooler = roi.pooler if hasattr(roi, "pooler") else roi.box_pooler
    agnostic = predictor.bbox_pred.out_features == 4
    return {
        "regions per image, share of positives": [roi.batch_size_per_image, roi.positive_fraction],
        "overlap of positives": matcher.thresholds[1],
        "low overlaps match": matcher.allow_low_quality_matches,
        "objects added": roi.proposal_append_gt,
        "classes": predictor.num_classes,
        "one box for all classes": agnostic,
        "box weights": list(predictor.box2box_transform.weights),
        "box loss": _box_loss(predictor.box_reg_loss_type, predictor.smooth_l1_beta, 1.0),
        "box pooling": _pooling(pooler),
        "mask pooling": _pooling(getattr(roi, "mask_pooler", pooler)) if config.MODEL.MASK_ON else None,
        **({"keypoint pooling": _pooling(roi.keypoint_pooler)} if config.MODEL.KEYPOINT_ON else {}),
        **({"classes of the federated loss": predictor.fed_loss_num_classes} if predictor.use_fed_loss else {}),
        "test: score, overlap of NMS, detections": [
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        ],
    }


def _pooling(pooler: Any) -> dict[str, Any]:
    align = pooler.level_poolers[0]
    several = len(pooler.level_poolers) > 1
    return {
        "side": align.output_size[0],
        "samples": align.sampling_ratio,
        "half a pixel off": align.aligned,
        # Smaller regions are read from the level with the largest maps.
        "side of second level": pooler.canonical_box_size / 2 ** (pooler.canonical_level - pooler.min_level - 1)
        if several
        else None,
    }


def _box_loss(kind: str, beta: float, weight: float) -> str:
    return f"{'L1' if (kind, beta) == ('smooth_l1', 0) else f'{kind} {beta}'} x {weight:g}"


def describe_solver(config: CfgNode, model: Any) -> dict[str, Any]:
    """The training."""
    given, made = config.SOLVER, optimizer(config, model)
    schedule = build_lr_scheduler(config, made)
    clip = given.CLIP_GRADIENTS
    return {
        "steps": given.MAX_ITER,
        "images per step": given.IMS_PER_BATCH,
        "optimizer": facts.optimizer_facts(made),
        "learning rate": facts.schedule_facts(
            lambda step: given.BASE_LR * schedule._multiplier(step / given.MAX_ITER), given.MAX_ITER
        ),
        "gradient clipped": f"{clip.CLIP_TYPE} {clip.CLIP_VALUE:g}" if clip.ENABLED else None,
        "precision": "mixed" if given.AMP.ENABLED else "full",
        "batches of PreciseBN": config.TEST.PRECISE_BN.NUM_ITER if config.TEST.PRECISE_BN.ENABLED else 0,
    }


def describe_data(config: CfgNode) -> dict[str, Any]:
    """Images, augmentation and metric."""
    training, test = augmentations(config), build_augmentation(config, is_train=False)
    (resize,) = (step for step in training if "Resize" in type(step).__name__)
    side, given = config.TRANSFER.SCALE_JITTER, config.DATALOADER
    repeats = given.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    rare = {"training: repeated, classes in a smaller share of images": given.REPEAT_THRESHOLD} if repeats else {}
    further = [
        f"{type(a).__name__} {a.prob:g}" if hasattr(a, "prob") else type(a).__name__
        for a in training
        if a is not resize
    ]
    return {
        "training: short sides, longest": [[side], side]
        if side
        else [sorted(resize.short_edge_length), resize.max_size],
        "training: further": further,
        "training: images without objects": not given.FILTER_EMPTY_ANNOTATIONS,
        "training: wide images apart": given.ASPECT_RATIO_GROUPING,
        **rare,
        "test: short side, longest": [test[0].short_edge_length[0], test[0].max_size],
        "metric": METRICS[config.DATASETS.TEST[0].split("/")[0]],
    }


if __name__ == "__main__":
    main()
