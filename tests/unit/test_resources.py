"""What an evaluation may use of the machine changes nothing but its speed."""

from pathlib import Path

import command
import numpy as np
import pytest
import torch
from toy_images import toy_data

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.device import Resources, limited, pick_device
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import workers
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.extraction import Work
from cgh_bench.frozen.features import extract


@pytest.fixture(scope="module")
def backbone():
    return random_checkpoint("vit_tiny_patch16_32")


def test_the_features_are_the_same_in_other_batches(backbone, tmp_path, monkeypatch):
    sizes, forward = [], Work.forward

    def counted(work, network, batch):
        sizes.append(len(batch))
        return forward(work, network, batch)

    monkeypatch.setattr(Work, "forward", counted)
    images = toy_data().val
    whole = extract(backbone, images, AS_IS, "layer4", tmp_path / "whole")
    with limited(Resources(batch_size=5)):
        parts = extract(backbone, images, AS_IS, "layer4", tmp_path / "parts")
    assert sizes == [24, 5, 5, 5, 5, 4]
    np.testing.assert_allclose(parts.features, whole.features, rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_fit_a_gpu_is_told_with_one_that_may(backbone, tmp_path, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Work, "forward", full)
    with pytest.raises(UserError, match="^batch size 24 .* --batch-size 12$"):
        extract(backbone, toy_data().val, AS_IS, "layer4", tmp_path)


def test_as_many_processes_read_as_were_asked_for():
    class Files:
        name, in_memory = "files", False

    for count in (0, 3):
        with limited(Resources(workers=count)):
            assert workers(Files(), 1000, 10) == count
            assert workers(Files(), 1000, 2) == min(count, 2) and workers(Files(), 1000, 1) == 0
    assert workers(Files(), 1000, 10) >= 1


def test_a_device_that_is_not_there_is_refused():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with limited(Resources(device="cpu")):
        assert pick_device() == torch.device("cpu")
    words = ("eval", "animals_knn", "--ckpt", "random:resnet18", "--device", "cuda:99")
    failed = command.run(*words, cwd=Path())
    assert failed.returncode == 2 and "--device cuda:99: this machine has cpu" in failed.stderr
