"""Linear probe, heads on maps and fine-tuning in several processes are those of one."""

import json
from pathlib import Path
from typing import Any

import dense_folder
import pytest
import ranks
import torch
import training_process


def trained(arch: str, folder: Path) -> list[tuple[dict[str, Any], Any]]:
    """State and epochs of one process, and of two."""
    ranks.run(training_process.main, arch, str(folder / "two"))
    training_process.main(arch, str(folder / "one"))
    return [
        (
            torch.load(folder / name / "state.pt", weights_only=True)["learner"],
            json.loads((folder / name / "epochs.json").read_text()),
        )
        for name in ("one", "two")
    ]


def test_a_linear_probe(tmp_path: Path) -> None:
    (one, of_one), (two, of_two) = trained("resnet18", tmp_path)
    for feature in ("layer4", "layer3"):
        torch.testing.assert_close(two[feature]["weights"], one[feature]["weights"], atol=1e-5, rtol=1e-4)
    assert of_one["heads"] == of_two["heads"]
    for epoch_of_one, epoch_of_two in zip(of_one["epochs"], of_two["epochs"], strict=True):
        assert epoch_of_one.keys() == epoch_of_two.keys()
        for name, values in epoch_of_one.items():
            assert values == pytest.approx(epoch_of_two[name])


@pytest.mark.slow
def test_maps(tmp_path: Path) -> None:
    """Linear segmentation with cached and with computed features, depth, normals, and in-context segmentation."""
    dense_folder.write(tmp_path / "squares", 5, 2)
    dense_folder.write_steps(tmp_path / "steps", 5, 2)
    ranks.run(training_process.dense, str(tmp_path), str(tmp_path / "two"))
    training_process.dense(str(tmp_path), str(tmp_path / "one"))
    for name in training_process.DENSE:
        one, two = (tmp_path / count / name for count in ("one", "two"))
        found = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
        assert found[1] == pytest.approx(found[0], rel=1e-3), name
        if (one / "state.pt").exists():
            heads = [torch.load(run / "state.pt", weights_only=True)["learner"]["head"] for run in (one, two)]
            torch.testing.assert_close(heads[1], heads[0], atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_fine_tuning_without_batch_norm(tmp_path: Path) -> None:
    (one, of_one), (two, of_two) = trained("vit_tiny_patch16_32", tmp_path)
    assert of_one == of_two
    for name, tensor in one["network"].items():
        torch.testing.assert_close(two["network"][name], tensor, atol=1e-5, rtol=1e-4)
