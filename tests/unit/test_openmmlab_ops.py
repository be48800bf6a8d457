"""The operators that stand in for compiled mmcv, called as mmcv calls them, against float64 loops and torchvision."""

import importlib.util
import itertools
import math
import subprocess
import sys
import types

import pytest
import torch
import torchvision

pytest.importorskip("mmcv")

from cgh_bench.transfer_configs.openmmlab import ops  # first: it provides mmcv's operators

import mmcv.ops as mmcv_ops  # isort: skip


def sample(feature: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """Bilinear value (C,) of `feature` (C, H, W), zero from one pixel outside on."""
    height, width = feature.shape[1:]
    if not (-1.0 <= y <= height and -1.0 <= x <= width):
        return feature.new_zeros(len(feature))
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy = 0.0 if y0 == y1 else y - y0
    dx = 0.0 if x0 == x1 else x - x0
    top = (1 - dx) * feature[:, y0, x0] + dx * feature[:, y0, x1]
    bottom = (1 - dx) * feature[:, y1, x0] + dx * feature[:, y1, x1]
    return (1 - dy) * top + dy * bottom


def roi_align_reference(features, rois, size, scale, sampling, aligned):
    """He et al., Mask R-CNN, section 3, with the half-pixel convention as an option: plain loops in float64."""
    outputs = []
    for roi in rois.tolist():
        feature = features[int(roi[0])]
        shift = 0.5 if aligned else 0.0
        x1, y1, x2, y2 = (scale * value - shift for value in roi[1:])
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        ny = sampling or max(math.ceil(height / size[0]), 0)
        nx = sampling or max(math.ceil(width / size[1]), 0)
        cells = []
        for row, column in itertools.product(range(size[0]), range(size[1])):
            points = [
                sample(
                    feature,
                    y1 + (row + (i + 0.5) / ny) * height / size[0],
                    x1 + (column + (j + 0.5) / nx) * width / size[1],
                )
                for i, j in itertools.product(range(ny), range(nx))
            ]
            cells.append(torch.stack(points).mean(0) if points else feature.new_zeros(len(feature)))
        outputs.append(torch.stack(cells, 1).view(len(feature), *size))
    return torch.stack(outputs)


def nms_reference(boxes, scores, threshold, offset):
    """Greedy suppression in float64; `offset` 1 is the old convention in which a box includes its last pixel."""
    boxes, kept = boxes.double().tolist(), []

    def area(box):
        return (box[2] - box[0] + offset) * (box[3] - box[1] + offset)

    for index in scores.argsort(descending=True).tolist():
        box = boxes[index]
        for other in (boxes[k] for k in kept):
            width = min(box[2], other[2]) - max(box[0], other[0]) + offset
            height = min(box[3], other[3]) - max(box[1], other[1]) + offset
            both = max(width, 0.0) * max(height, 0.0)
            if both / (area(box) + area(other) - both) > threshold:
                break
        else:
            kept.append(index)
    return kept


def random_boxes(count: int, side: float, generator: torch.Generator) -> torch.Tensor:
    corners = side * torch.rand(count, 2, generator=generator)
    return torch.cat([corners, corners + 0.5 + 0.6 * side * torch.rand(count, 2, generator=generator)], 1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", [0, 2])
def test_roi_align_and_its_gradient_equal_float64_loops(sampling, aligned):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 3, 9, 11, generator=generator)
    rois = torch.cat([torch.tensor([[0.0], [1], [0], [1], [1]]), random_boxes(5, 30, generator)], 1)
    rois[4, 1:] = torch.tensor([7.0, 7.0, 7.1, 7.1])  # smaller than a pixel of the map
    given = features.clone().requires_grad_()
    output = mmcv_ops.roi_align(given, rois, (3, 4), 0.25, sampling, "avg", aligned)
    exact = features.double().requires_grad_()
    expected = roi_align_reference(exact, rois.double(), (3, 4), 0.25, sampling, aligned)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(output.shape, generator=generator)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_roi_align_equals_torchvisions():
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(1, 4, 16, 16, generator=generator)
    rois = torch.cat([torch.zeros(20, 1), random_boxes(20, 50, generator)], 1)
    ours = mmcv_ops.RoIAlign((7, 7), 0.25, 2, aligned=True)(features, rois)
    assert torch.equal(ours, torchvision.ops.roi_align(features, rois, (7, 7), 0.25, 2, True))


def test_roi_align_of_no_boxes_is_empty():
    features = torch.randn(1, 4, 8, 8, requires_grad=True)
    output = mmcv_ops.roi_align(features, torch.zeros(0, 5), (7, 7), 0.5, 0, "avg", True)
    assert output.shape == (0, 4, 7, 7)
    output.sum().backward()
    assert not features.grad.any()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_equals_a_float64_loop(threshold, offset):
    generator = torch.Generator().manual_seed(5)
    boxes, scores = random_boxes(200, 40, generator), torch.rand(200, generator=generator)
    kept = nms_reference(boxes, scores, threshold, offset)
    detections, indices = mmcv_ops.nms(boxes, scores, threshold, offset=offset)
    assert indices.tolist() == kept
    assert torch.equal(detections[:, :4], boxes[kept])
    assert 1 < len(kept) < 200


def test_offset_decides_where_boxes_just_touch():
    boxes, scores = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]]), torch.tensor([0.9, 0.8])
    assert len(mmcv_ops.nms(boxes, scores, 0.3, offset=0)[1]) == 2
    assert len(mmcv_ops.nms(boxes, scores, 0.3, offset=1)[1]) == 1


def test_batched_nms_keeps_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    _, kept = mmcv_ops.batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [0, 1]


def test_focal_loss_and_its_gradient_equal_float64_loops():
    """Equation 5 of https://arxiv.org/abs/1708.02002, and its derivative by central differences."""
    scores = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target, gamma, alpha = torch.tensor([0, 2, 3, 1, 3]), 2.0, 0.25  # 3 is none of the three

    def loss(value: float, positive: bool) -> float:
        p = 1 / (1 + math.exp(-value))
        p, a = (p, alpha) if positive else (1 - p, 1 - alpha)
        return -a * (1 - p) ** gamma * math.log(p)

    places = list(itertools.product(range(5), range(3)))
    expected = [loss(float(scores[i, c]), bool(target[i] == c)) for i, c in places]
    step = 1e-6
    slopes = [
        (
            loss(float(scores[i, c]) + step, bool(target[i] == c))
            - loss(float(scores[i, c]) - step, bool(target[i] == c))
        )
        / (2 * step)
        for i, c in places
    ]
    leaf = scores.clone().requires_grad_()
    output = mmcv_ops.sigmoid_focal_loss(leaf, target, gamma, alpha, None, "none")
    weights = torch.arange(15.0, dtype=torch.float64).reshape(5, 3)
    (weights * output).sum().backward()
    torch.testing.assert_close(output.flatten(), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(leaf.grad.flatten(), weights.flatten() * torch.tensor(slopes), rtol=1e-6, atol=1e-8)


def test_deformable_attention_is_that_of_cpus_with_its_gradients():
    """mmcv calls the operator for tensors on a GPU only; here it is called for any."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[4, 3], [2, 2]])
    sizes = (2, 16, 2, 4), (2, 5, 2, 2, 3, 2), (2, 5, 2, 2, 3)  # values, locations, weights
    given = [torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes]
    found = []
    for attend in (
        lambda value, *rest: MultiScaleDeformableAttnFunction.apply(value, shapes, torch.tensor([0, 12]), *rest, 64),
        lambda value, *rest: multi_scale_deformable_attn_pytorch(value, shapes, *rest),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        output = attend(*leaves)
        output.square().sum().backward()
        found.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_other_operators_say_what_is_missing_and_how_to_get_it():
    with pytest.raises(NotImplementedError, match=r"softnms.*MMCV_WITH_OPS=1 pip install"):
        mmcv_ops.soft_nms(torch.zeros(1, 4), torch.ones(1))
    with pytest.raises(NotImplementedError, match="pool_mode='avg'"):
        mmcv_ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), 1.0, 0, "max", True)


def test_the_framework_finds_the_module():
    assert importlib.util.find_spec("mmcv._ext") is not None
    from mmcv.utils.ext_loader import check_ops_exist

    assert check_ops_exist()
    assert not hasattr(sys.modules["mmcv._ext"], "__path__")


def test_a_compiled_module_wins(monkeypatch):
    compiled = types.ModuleType("mmcv._ext")
    monkeypatch.setitem(sys.modules, "mmcv._ext", compiled)
    assert ops.install() is False
    assert sys.modules["mmcv._ext"] is compiled


@pytest.mark.slow
def test_a_compiled_module_on_disk_wins(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv/__init__.py").write_text("")
    (tmp_path / "mmcv/_ext.py").write_text("")
    code = "import ops, sys; print(ops.install(), 'mmcv._ext' in sys.modules)"
    path = f"{tmp_path}:{ops.__file__.rsplit('/', 1)[0]}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
