"""The tables of docs/scaling.md are what the estimators say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.data import load
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.extraction import open_bank
from cgh_bench.frozen.features import bank_bytes, plan
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.optimisation import optimizer

TOOL = Path(__file__).parents[2] / "tools" / "scaling_tables.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_tables", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    text = tool.PAGE.read_text(encoding="utf-8")
    assert tool.page(text) == text, "run python tools/scaling_tables.py"


@pytest.mark.parametrize("name", ["cgh_r18_animals", "dino_r18_animals"])
def test_the_state_is_as_large_as_a_saved_one(tool: ModuleType, name: str, tmp_path: Path) -> None:
    recipe = recipes.find(name)
    method = recipe.method.build(recipe.architecture)
    descent = optimizer(recipe, method)
    for group in descent.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    descent.step()
    torch.save({"method": method.state_dict(), "optimizer": descent.state_dict()}, tmp_path / "state")
    assert (tmp_path / "state").stat().st_size == pytest.approx(tool.state_bytes(recipe), rel=0.01)


def test_features_are_as_large_as_their_file_and_as_planned(tmp_path: Path) -> None:
    images, backbone = load("animals", "val"), random_checkpoint("resnet18")
    open_bank(tmp_path, len(images), 512)
    size = (tmp_path / "features.npy").stat().st_size
    assert bank_bytes(len(images), 512) == size - 128, "but for the head of the file"
    (line,) = plan(backbone, images, AS_IS, ("layer4",), tmp_path)
    assert f", {size / 1e9:.2f} GB on disk" in line
