"""A GPU computes what a CPU does. `pytest -m gpu` on a machine with one; elsewhere they are skipped."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.device import arithmetic, pick_device
from cgh_bench.core.registry import registered
from cgh_bench.data.image_set import GreyImages
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen import probe
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.neighbours import neighbours
from cgh_bench.pretrain.augmentation import finish
from cgh_bench.pretrain.batches import Batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
RECIPES = registered("cgh_bench.pretrain.methods", "RECIPES")
METHODS = {
    type(recipe.method).__name__: recipe for recipe in RECIPES.values() if recipe.data == "animals" and recipe.epochs
}


def noise(n=64, side=48):
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side), dtype=np.uint8)
    return GreyImages("noise", tuple("01"), np.arange(n) % 2, "0" * 16, pixels)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch12_48", "convnext_atto"])
def test_features_are_the_cpus(name, tmp_path):
    checkpoint, images = random_checkpoint(name), noise()
    bank = extract(checkpoint, images, AS_IS, "layer4", tmp_path)
    pixels = torch.stack([AS_IS(images.image(i)) for i in range(len(images))])
    with torch.inference_mode():
        exact = checkpoint.backbone().double()(checkpoint.preprocessing(pixels).double()).numpy()
    assert np.linalg.norm(bank.features - exact) <= 1e-5 * np.linalg.norm(exact)


@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_neighbours_are_the_cpus_to_the_bit(spread):
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    bank, queries = (draw.normal(1, spread, (n, 128)).astype(np.float32) for n in (40_000, 200))
    for here, there in zip(*(neighbours(bank, queries, 50, backend) for backend in ("torch", "faiss")), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_the_cpus(name):
    recipe = METHODS[name]
    views = [torch.rand(16, 3, view.size, view.size) for view in recipe.views.augments]
    found = []
    for device in (torch.device("cpu"), pick_device()):
        torch.manual_seed(0)
        method = recipe.method.build(recipe.architecture).train().to(device)
        torch.manual_seed(1)
        with arithmetic("fp32", device):
            terms = method([view.to(device) for view in views], 4.0, torch.arange(16, device=device) % 10)
            sum(terms.values()).backward()
        gradients = torch.cat([p.grad.cpu().flatten() for p in method.parameters() if p.grad is not None])
        found.append(({term: float(value.detach()) for term, value in terms.items()}, gradients))
    (cpu, slopes), (gpu, got) = found
    assert gpu == pytest.approx(cpu, rel=1e-4)
    assert (got - slopes).norm() <= 1e-3 * slopes.norm()


def test_views_are_finished_as_on_the_cpu():
    recipe = replace(RECIPES["moco_v2_r50_in1k_200ep"], batch_size=16)
    for side in (64, 300):
        on_cpu, for_gpu = (Batches(recipe, noise(16, side), for_gpu=gpu)[0].views for gpu in (False, True))
        for augment, view, cut in zip(recipe.views.augments, on_cpu, for_gpu, strict=True):
            got = finish(augment, cut._replace(pixels=cut.pixels.to(pick_device()))).cpu()
            torch.testing.assert_close(got, view, rtol=0, atol=2e-3)


def test_the_probe_finds_the_cpus_optimum(monkeypatch):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 500)
    features = (draw.normal(size=(5, 32))[labels] + draw.normal(size=(500, 32))).astype(np.float32)
    found = []
    for device in (pick_device(), torch.device("cpu")):
        monkeypatch.setattr(probe, "pick_device", lambda device=device: device)
        problem = probe.problem(features, labels, 5, np.arange(500))
        found.append(probe.fit(problem, (1e-4, 1e-2), 300, 1e-6)[0].cpu())
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=1e-3)


def test_a_killed_pretraining_resumes(tmp_path):
    """It resumes from its last state and ends; equal bits need CGH_DETERMINISTIC=1."""
    words = [
        "pretrain",
        "moco_v2_r18_animals",
        "-o",
        str(tmp_path),
        "--set",
        "epochs=2",
        "--set",
        "method.queue_length=256",
    ]
    command = [sys.executable, "-m", "cgh_bench", *words]
    run = subprocess.Popen(command)
    while run.poll() is None and not (tmp_path / "checkpoint.pt").exists():
        time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    subprocess.run(command, check=True)
    assert (tmp_path / "backbone.safetensors").exists()
