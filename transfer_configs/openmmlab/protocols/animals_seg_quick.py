"""animals_seg_quick: animals_seg_any in half the steps at 96 px: a fourth of the time.

Maps are scored at the size of the scenes. All other values are those of animals_seg_any. It separates good backbones
from bad ones, but ranks them differently (benchmarks/quick_ranking.py).
"""

_base_ = "animals_seg_any.py"

iterations = 150

model = {"data_preprocessor": {"size": (96, 96)}}

train_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackSegInputs"},
        ],
    },
}
test_dataloader = {
    "dataset": {
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "scale": (96, 96), "keep_ratio": True},
            {"type": "LoadAnnotations"},
            {"type": "PackSegInputs"},
        ],
    },
}

train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.05, "by_epoch": False, "begin": 0, "end": 5},
    {"type": "PolyLR", "eta_min": 0.0, "power": 0.9, "by_epoch": False, "begin": 5, "end": iterations},
]
