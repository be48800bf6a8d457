"""Print what a protocol builds in mmdetection or mmsegmentation, as a line of JSON.

Network, solver, data and metric, as they take effect.

python -m cgh_bench.transfer_configs.openmmlab.describe --config coco_det.py [--set k=v …]
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from torch import nn

from cgh_bench.transfer_configs.contract import facts, processes
from cgh_bench.transfer_configs.openmmlab import train

PARTS = (
    ("roi_head.shared_head.norm", "extra norm"),
    ("roi_head.shared_head", facts.BACKBONE),
    ("roi_head.mask", "mask head"),
    ("roi_head", "box head"),
    ("rpn_head", "RPN"),
    ("decode_head", "decode head"),
    ("auxiliary_head", "auxiliary head"),
    ("bbox_head", "box head"),
    ("neck", "neck"),
    ("backbone", facts.BACKBONE),
    ("", "transformer"),
)
METRICS = {
    "InstanceAP": "COCO, 101 points",
    "ElevenPointAP": "VOC 2007, 11 points",
    "CityscapesAP": "Cityscapes",
    "SemanticIoU": "mean IoU",
}


def main() -> None:
    """Build and print."""
    options = processes.parser(__doc__, action=DictAction, default={}).parse_args()
    config = train.protocol(
        argparse.Namespace(**vars(options), weights=None, gpus=0, work=Path(), seed=0, images_at_a_time=None)
    )
    importlib.import_module(f"{config.default_scope}.models")  # which registers them
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model).train()
    described = {
        "model": describe_network(config, model),
        "solver": describe_solver(config, model),
        "data": describe_data(config),
    }
    print(json.dumps(described))


def describe_network(config: Config, model: Any) -> dict[str, Any]:
    """The network."""
    given = model.data_preprocessor
    return {
        **facts.model_facts(model, PARTS),
        "channels": "RGB" if given._channel_conversion else "BGR",
        "mean": [round(value, 3) for value in given.mean.flatten().tolist()],
        "std": [round(value, 3) for value in given.std.flatten().tolist()],
        **_describe_heads(config, model),
    }


def _describe_heads(config: Config, model: Any) -> dict[str, Any]:
    if "decode_head" in config.model:
        heads = {"decode head": "decode_head", "auxiliary head": "auxiliary_head"}
        found = {title: getattr(model, name, None) for title, name in heads.items()}
        return {
            "training images padded to": list(model.data_preprocessor.size),
            **{title: describe_decoder(head) for title, head in found.items() if head is not None},
            "test": dict(config.model.test_cfg),
        }
    padded = {"sides padded to multiples of": model.data_preprocessor.pad_size_divisor}
    if "rpn_head" in config.model:
        roi = model.roi_head
        return {**padded, "RPN": describe_rpn(model.rpn_head, config.model), "regions": describe_regions(roi)}
    if "encoder" in config.model:
        return {**padded, "queries": describe_queries(config.model)}
    return {**padded, "dense head": describe_dense_head(model.bbox_head)}


def describe_queries(given: Any) -> dict[str, Any]:
    """The head of an end-to-end detector."""
    head = given.bbox_head
    losses = {name.removeprefix("loss_"): loss for name, loss in head.items() if name.startswith("loss_")}
    return {
        "number": given.num_queries,
        "scales": given.num_feature_levels,
        "layers of encoder, decoder": [given.encoder.num_layers, given.decoder.num_layers],
        "classes": head.num_classes,
        "losses": {name: f"{loss.type.removesuffix('Loss')} x {loss.loss_weight:g}" for name, loss in losses.items()},
        "matching": {cost.type.removesuffix("Cost"): cost.weight for cost in given.train_cfg.assigner.match_costs},
        "denoising queries": given.dn_cfg.group_cfg.num_dn_queries,
        "test: detections": given.test_cfg.max_per_img,
    }


def describe_decoder(head: Any) -> dict[str, Any]:
    """A head of semantic segmentation."""
    return {
        "kind": type(head).__name__,
        "reads": head.in_index,
        "channels": head.channels,
        "classes": head.num_classes,
        "dropout": head.dropout_ratio,
        "loss": f"{type(head.loss_decode).__name__.removesuffix('Loss')} x {head.loss_decode.loss_weight:g}",
    }


def describe_dense_head(head: Any) -> dict[str, Any]:
    """The head of a one-stage detector."""
    generator, assigner, test = head.prior_generator, head.assigner, head.test_cfg
    strides = [stride[0] for stride in generator.strides]
    return {
        "anchors": facts.anchor_facts(dict(zip(strides, generator.base_anchors, strict=True))),
        "overlap of negatives, positives": [assigner.neg_iou_thr, assigner.pos_iou_thr],
        "least overlap of an object's best anchor": _least_overlap(assigner),
        "classes": head.num_classes,
        "focal loss: gamma, alpha": [head.loss_cls.gamma, head.loss_cls.alpha],
        "box weights": [round(1 / std, 6) for std in head.bbox_coder.stds],
        "box loss": _box_loss(head.loss_bbox),
        "test: before NMS per level": test.nms_pre,
        "test: score, overlap of NMS, detections": [test.score_thr, test.nms.iou_threshold, test.max_per_img],
    }


def _least_overlap(assigner: Any) -> float:
    return assigner.min_pos_iou if assigner.match_low_quality else assigner.pos_iou_thr


def describe_rpn(rpn: Any, given: Any) -> dict[str, Any]:
    """The region proposals."""
    generator, assigner, sampler = rpn.prior_generator, rpn.assigner, rpn.sampler
    before = given.train_cfg.rpn_proposal, given.test_cfg.rpn
    strides = [stride[0] for stride in generator.strides]
    return {
        "anchors": facts.anchor_facts(dict(zip(strides, generator.base_anchors, strict=True))),
        "overlap of negatives, positives": [assigner.neg_iou_thr, assigner.pos_iou_thr],
        "least overlap of an object's best anchor": _least_overlap(assigner),
        "anchors per image, share of positives": [sampler.num, sampler.pos_fraction],
        "before NMS per level, training and test": [cfg.nms_pre for cfg in before],
        "after NMS, training and test": [cfg.max_per_img for cfg in before],
        "overlap of NMS": given.test_cfg.rpn.nms.iou_threshold,
        "box loss": _box_loss(rpn.loss_bbox),
    }


def describe_regions(roi: Any) -> dict[str, Any]:
    """The heads on regions; of a cascade the first, with the overlaps and box weights of all."""
    cascade = isinstance(roi.bbox_head, nn.ModuleList)
    parts = (roi.bbox_head, roi.bbox_assigner, roi.bbox_sampler, roi.bbox_roi_extractor)
    head, assigner, sampler, extractor = (part[0] if cascade else part for part in parts)
    masks = roi.mask_roi_extractor if getattr(roi, "mask_head", None) is not None else None
    mask = masks[0] if cascade and masks is not None else masks
    test, pooling = roi.test_cfg, _pooling(extractor)
    stages = {}
    if cascade:
        stages["overlaps of positives by stage"] = [each.pos_iou_thr for each in roi.bbox_assigner]
        weights = [[round(1 / std, 6) for std in each.bbox_coder.stds] for each in roi.bbox_head]
        stages["box weights by stage"] = weights
    return {
        **stages,
        "regions per image, share of positives": [sampler.num, sampler.pos_fraction],
        "overlap of positives": assigner.pos_iou_thr,
        "low overlaps match": assigner.match_low_quality,
        "objects added": sampler.add_gt_as_proposals,
        "classes": head.num_classes,
        "one box for all classes": head.reg_class_agnostic,
        "box weights": [round(1 / std, 6) for std in head.bbox_coder.stds],
        "box loss": _box_loss(head.loss_bbox),
        "box pooling": pooling,
        "mask pooling": _pooling(mask) if mask is not None else None,
        "test: score, overlap of NMS, detections": [test.score_thr, test.nms.iou_threshold, test.max_per_img],
    }


def _pooling(extractor: Any) -> dict[str, Any]:
    align = extractor.roi_layers[0]
    return {
        "side": align.output_size[0],
        "samples": align.sampling_ratio,
        "half a pixel off": align.aligned,
        "side of second level": 2 * extractor.finest_scale if len(extractor.roi_layers) > 1 else None,
    }


def _box_loss(loss: Any) -> str:
    return f"{type(loss).__name__.removesuffix('Loss')} x {loss.loss_weight:g}"


def describe_solver(config: Config, model: Any) -> dict[str, Any]:
    """The training."""
    given = config.optim_wrapper
    clip, hooks = given.get("clip_grad"), config.get("custom_hooks", [])
    return {
        "steps": config.train_cfg.max_iters,
        "images per step": config.train_dataloader.batch_size,
        "optimizer": facts.optimizer_facts(build_optim_wrapper(model, {**given, "type": "OptimWrapper"}).optimizer),
        "learning rate": _learning_rates(config),
        "gradient clipped": f"full_model {clip.max_norm:g}" if clip else None,
        "precision": "mixed" if given.type == "AmpOptimWrapper" else "full",
        "batches of PreciseBN": sum(hook.iterations for hook in hooks if hook.type == "PreciseBN"),
    }


def _learning_rates(config: Config) -> dict[str, float]:
    """Found by running the schedulers to their end on an optimiser of one parameter."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build({**one, "optimizer": optimizer}) for one in config.param_scheduler]
    steps, rates = config.train_cfg.max_iters, {}
    wanted = set(facts.sampled_steps(steps))
    for step in range(steps):
        if step in wanted:
            rates[step] = optimizer.param_groups[0]["lr"]
        for scheduler in schedulers:
            scheduler.step()
    return facts.schedule_facts(lambda step: rates[step], steps)


def describe_data(config: Config) -> dict[str, Any]:
    """Images, augmentation and metric."""
    training, test = config.train_dataloader.dataset, config.test_dataloader.dataset
    first = training.datasets[0] if "datasets" in training else training
    if "decode_head" in config.model:
        return describe_segmentation_data(config, first.pipeline, test.pipeline)
    chosen: list[Any] = next((step.transforms for step in first.pipeline if step.type == "RandomChoice"), [])
    resize = next(step for step in [*first.pipeline, *(chosen[0] if chosen else ())] if "Resize" in step.type)
    further = [step for step in first.pipeline[2:-1] if step is not resize]
    (tested,) = (step for step in test.pipeline if step.type == "Resize")
    scales = [sorted(scale) for scale in resize.get("scales", [resize.get("scale")])]
    return {
        "training: short sides, longest": [[short for short, _ in sorted(scales)], scales[0][1]],
        "training: further": [f"{step.type} {step.prob:g}" if "prob" in step else step.type for step in further],
        "training: images without objects": not first.filter_cfg.filter_empty_gt,
        "training: wide images apart": config.train_dataloader.get("batch_sampler") is not None,
        "test: short side, longest": sorted(tested.scale),
        "metric": METRICS[config.test_evaluator.type],
    }


def describe_segmentation_data(config: Config, training: Any, test: Any) -> dict[str, Any]:
    """Images, augmentation and metric of semantic segmentation."""
    resize: dict[str, Any] = next((step for step in training if "Resize" in step.type), {})
    crop: dict[str, Any] = next((step for step in training if step.type == "RandomCrop"), {})
    tested: dict[str, Any] = next((step for step in test if step.type == "Resize"), {})
    return {
        "training: resize": {key: value for key, value in resize.items() if key != "type"},
        "training: crop": list(crop.get("crop_size", ())),
        "training: steps": [step.type for step in training],
        "test: scale": list(tested.get("scale", ())),
        "metric": METRICS[config.test_evaluator.type],
    }


if __name__ == "__main__":
    main()
