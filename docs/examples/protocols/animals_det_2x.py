"""animals_det_2x: animals_det for twice as long. All other values are those of animals_det."""

_base_ = "animals_det.py"
weights_into = ("backbone",)  # the module whose tensors are the checkpoint's

iterations = 500
train_cfg = {"max_iters": iterations, "val_interval": iterations + 1}
param_scheduler = [
    {"type": "LinearLR", "start_factor": 0.05, "by_epoch": False, "begin": 0, "end": 20},
    {"type": "CosineAnnealingLR", "eta_min": 0.0, "by_epoch": False, "begin": 20, "end": iterations},
]
