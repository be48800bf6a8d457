"""One step of every detection and segmentation protocol has the CPU's losses; the frameworks' data are not needed."""

import sys
from pathlib import Path

import pytest
import torch
from framework_models import of_detectron2, of_openmmlab

from cgh_bench.checkpoint import random_checkpoint, save
from cgh_bench.core.device import pick_device
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.foreign import frameworks
from cgh_bench.tasks.transfer import Transfer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CARRIED = {"any": "resnet18", "single-scale": "vit_tiny_patch16_224", "multi-scale": "swin_tiny_patch4_window7_224"}
"""A small network of each kind that protocols carry."""
RANDOM = {"coco_dino", "lvis_vitdet"}
"""Their losses are of noise that is drawn on the device."""
PROTOCOLS = {
    f"{task.framework} {task.protocol}": task
    for task in registered("cgh_bench.tasks", "TASKS").values()
    if isinstance(task, Transfer) and task.protocol not in RANDOM
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_losses_of_a_step_are_the_cpus(name, tmp_path, monkeypatch):
    randperm = torch.randperm  # on the device it would choose other regions
    monkeypatch.setattr(torch, "randperm", lambda n, device=None, **options: randperm(n, **options).to(device or "cpu"))
    cpu, gpu = (losses(PROTOCOLS[name], device, tmp_path, monkeypatch) for device in ("cpu", pick_device()))
    assert gpu == pytest.approx(cpu, rel=1e-3)


def losses(task, device, folder, monkeypatch):
    """Each loss of one step of the protocol's network, whose weights are drawn by a seed."""
    try:
        frameworks.require_installed(task.framework)
    except UserError as absent:
        pytest.skip(str(absent))
    if beside := frameworks.find(task.framework).folder_beside:
        monkeypatch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix, beside))])
    weights = None
    if task.arch in CARRIED:
        weights = folder / "weights.safetensors"
        save(random_checkpoint(CARRIED[task.arch]), weights)
    torch.manual_seed(0)
    built = of_detectron2 if task.framework == "detectron2" else lambda *given: of_openmmlab(task.framework, *given)
    side = built(task.protocol, weights)
    for module in side.model.to(device).train().modules():
        for chance in ("p", "drop_prob", "dropout_ratio"):  # of dropping out, which is drawn on the device
            if isinstance(getattr(module, chance, None), float):
                setattr(module, chance, 0.0)
    torch.manual_seed(1)
    return {term: float(loss.detach()) for term, loss in side.losses().items()}
