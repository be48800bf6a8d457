"""A ResNet as each framework has it and as it is carried there: the same outputs, and the same curve of a training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from framework_models import Side, import_here, of_detectron2, of_openmmlab
from torch import Tensor

from cgh_bench.checkpoint import Checkpoint, random_checkpoint, save
from cgh_bench.converters.base import find as find_converter
from cgh_bench.transfer_configs.contract import arrival

STEPS = 3
RESNET = {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}, "norm_eval": False}
"""mmsegmentation's own, in the place of the carried one: animals_seg is another network than animals_seg_any."""


def sides(framework: str, checkpoint: Checkpoint, folder: Path) -> tuple[Side, Side]:
    """Native and carried; each has the checkpoint's weights, and both have the same heads."""
    file = folder / "weights.safetensors"
    save(checkpoint, file)
    given = checkpoint.weights
    if framework == "mmseg":
        native, carried = (of_openmmlab("mmseg", "animals_seg_any", file, own) for own in (RESNET, None))
    elif framework == "mmdet":
        native, carried = of_openmmlab("mmdet", "animals_det", None), of_openmmlab("mmdet", "animals_det_any", file)
    else:
        native, carried = of_detectron2("animals_det", None), of_detectron2("animals_det_any", file)
        find_converter("detectron2").write(checkpoint, folder / "weights.pth")
        read: Any = arrival.read(folder / "weights.pth")
        given = read["model"]
    arrival.put(given, native.model.state_dict(), (native.backbone,))
    arrival.put(checkpoint.weights, carried.model.state_dict(), (carried.backbone,))
    heads = {k: v for k, v in native.model.state_dict().items() if not k.startswith(f"{native.backbone}.")}
    assert len(heads) > 10
    for name, tensor in heads.items():
        carried.model.state_dict()[name].copy_(tensor)
    return native, carried


def trained(side: Side) -> tuple[list[float], list[Tensor]]:
    """The losses of a short training, and the maps of the images after it."""
    optimizer, curve = torch.optim.SGD(side.model.parameters(), lr=0.01), []
    for step in range(STEPS):
        torch.manual_seed(step)  # of the regions that are sampled, and of dropout
        losses = side.losses()
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    side.model.eval()
    with torch.no_grad():
        return curve, [level.clone() for level in side.maps()]


@pytest.mark.parametrize("framework", ["mmdet", "mmseg", "detectron2"])
def test_outputs_and_training_are_the_same(framework, tmp_path, monkeypatch):
    import_here(framework, monkeypatch)
    native, carried = sides(framework, random_checkpoint("resnet18"), tmp_path)
    for side in (native, carried):
        side.model.eval()
    with torch.no_grad():
        before = [side.maps() for side in (native, carried)]
    for ours, theirs in zip(*before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for side in (native, carried):
        side.model.train()
    curves, after = zip(*(trained(side) for side in (native, carried)), strict=True)
    assert curves[0][0] != curves[0][-1]
    np.testing.assert_allclose(*curves, rtol=1e-5)
    for ours, theirs in zip(*after, strict=True):
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-4
