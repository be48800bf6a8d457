"""animals_det_quick: animals_det_any at 96 px, boxes only: half the time.

Anchors and the regions that a level reads have .75 of their sides, as the images have. All other values are those of
animals_det_any. With half the steps, average precision is 1 to 2 % and does not separate backbones. Both protocols
rank seven backbones alike but for one exchange of neighbours (benchmarks/quick_ranking.py).
"""

_base_ = "animals_det_any.py"

model = {
    "type": "FasterRCNN",
    "data_preprocessor": {"pad_mask": False},
    "rpn_head": {"anchor_generator": {"scales": [3]}},  # 12 to 96 px
    "roi_head": {"bbox_roi_extractor": {"finest_scale": 10.5}, "mask_head": None},
}

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    },
}
test_evaluator = {"masks": False}
