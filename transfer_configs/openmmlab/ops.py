"""The operators of `mmcv._ext` that the protocols use, through torchvision, if mmcv is not compiled.

mmcv from pip is pure Python on most machines, and `import mmcv.ops` then fails without its compiled module `_ext`.
`install` provides a module of that name. The signatures are those of mmcv's own calls
(https://github.com/open-mmlab/mmcv/tree/v2.1.0/mmcv/ops, nms.py, roi_align.py, focal_loss.py and
multi_scale_deform_attn.py), CPU and CUDA alike.
"""

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any, NoReturn

import torch
import torchvision

NAME = "mmcv._ext"


def install() -> bool:
    """Provide `mmcv._ext` unless there is a compiled one, which always wins. Returns whether ours is in use."""
    if NAME in sys.modules:
        return isinstance(sys.modules[NAME], Operators)
    if importlib.util.find_spec(NAME) is not None:
        return False
    sys.modules[NAME] = Operators()
    return True


class Operators(types.ModuleType):
    """A module with every operator's name; those that torchvision does not have raise an error when called."""

    def __init__(self) -> None:
        super().__init__(NAME, "mmcv's compiled operators, through torchvision")
        # mmengine asks importlib.util.find_spec whether operators exist, which reads this.
        loader: Any = importlib.machinery.BuiltinImporter  # the class itself is the loader
        self.__spec__ = importlib.machinery.ModuleSpec(NAME, loader, origin="torchvision")
        self.nms, self.roi_align_forward, self.roi_align_backward = nms, roi_align_forward, roi_align_backward
        # mmdetection has its own on CPUs.
        self.sigmoid_focal_loss_forward = sigmoid_focal_loss_forward
        self.sigmoid_focal_loss_backward = sigmoid_focal_loss_backward
        self.ms_deform_attn_forward, self.ms_deform_attn_backward = ms_deform_attn_forward, ms_deform_attn_backward

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv's operator {name} needs compiled code; without it only nms, average roi_align, "
                "sigmoid_focal_loss and deformable attention are available. "
                "Build it: MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary onedl-mmcv "
                "--force-reinstall --no-deps onedl-mmcv (a C++ compiler; 10 to 20 minutes)"
            )

        return missing


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Indices of the kept `boxes` (N, 4) as x1 y1 x2 y2, best score first; a box is x2 - x1 + `offset` wide."""
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def roi_align_forward(  # noqa: PLR0913 (mmcv's signature)
    features: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` (R, C, height, width) from `features` (B, C, H, W) and `rois` (R, 5): image, x1, y1, x2, y2."""
    _require_average(pool_mode)
    pooled = torch.ops.torchvision.roi_align(
        features, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    )
    output.copy_(pooled)


def roi_align_backward(  # noqa: PLR0913 (mmcv's signature)
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to `grad_input` (B, C, H, W), which mmcv hands over as zeros, the gradient of `roi_align_forward`."""
    _require_average(pool_mode)
    grad_input += torch.ops.torchvision._roi_align_backward(
        grad_output,
        rois,
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError("roi_align with pool_mode='max' needs compiled mmcv; use pool_mode='avg'")


def sigmoid_focal_loss_forward(
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `output` (N, C) from logits (N, C), classes (N,), where C is background, class weights (C,) or (0,)."""
    output.copy_(_focal_loss(scores, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    scores: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    """Fill `grad_input` (N, C) with each element's derivative of `sigmoid_focal_loss_forward`."""
    with torch.enable_grad():
        leaf = scores.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(_focal_loss(leaf, target, weight, gamma, alpha).sum(), leaf)
    grad_input.copy_(gradient)


def _focal_loss(
    scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, gamma: float, alpha: float
) -> torch.Tensor:
    """Lin et al., Focal Loss (https://arxiv.org/abs/1708.02002), equation 5."""
    classes = scores.shape[1]
    truth = torch.nn.functional.one_hot(target, classes + 1)[:, :classes].to(scores)
    losses: torch.Tensor = torchvision.ops.sigmoid_focal_loss(scores, truth, alpha, gamma)
    return losses * weight[target.clamp(max=classes - 1)][:, None] if weight.numel() else losses


def ms_deform_attn_forward(
    value: torch.Tensor,
    shapes: torch.Tensor,
    starts: torch.Tensor,
    locations: torch.Tensor,
    weights: torch.Tensor,
    *,
    im2col_step: int,
) -> torch.Tensor:
    """Attended values (B, Q, D) by mmcv's own code in plain PyTorch, which it keeps for CPUs; shapes as there."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_backward(  # noqa: PLR0913 (mmcv's signature)
    value: torch.Tensor,
    shapes: torch.Tensor,
    starts: torch.Tensor,
    locations: torch.Tensor,
    weights: torch.Tensor,
    grad_output: torch.Tensor,
    *gradients: torch.Tensor,
    im2col_step: int,
) -> None:
    """Fill `gradients` with those of value, locations and weights."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = ms_deform_attn_forward(leaves[0], shapes, starts, *leaves[1:], im2col_step=im2col_step)
        found = torch.autograd.grad(output, leaves, grad_output)
    for gradient, computed in zip(gradients, found, strict=True):
        gradient.copy_(computed)
