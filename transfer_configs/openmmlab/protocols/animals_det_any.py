"""animals_det_any: animals_det for any backbone, carried into mmdetection as it is.

All other values are those of animals_det. A backbone with maps at strides 4 to 32 has its FPN; one with a single scale
has ViTDet's simple feature pyramid in its place (Li et al., https://arxiv.org/abs/2203.16527, section 3). Attention is
that of the backbone.
"""

_base_ = "animals_det.py"
custom_imports = {
    "imports": ["cgh_bench.transfer_configs.openmmlab.carried", "cgh_bench.transfer_configs.openmmlab.detection_metric"]
}
weights_into = ("backbone.network",)  # the module whose tensors are the checkpoint's

model = {
    # The task names the checkpoint here; the necks' input is what its backbone has.
    "backbone": {"_delete_": True, "type": "Carried", "architecture": "resnet18", "drop_path": 0.0, "frozen": False},
}
neck_of_one_scale = {"type": "SimpleFeaturePyramid", "out_channels": 64, "num_outs": 4}
