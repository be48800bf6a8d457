"""GPU memory: what a step is expected to take, and what is said when there is too little."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.pretrain import train as loop
from cgh_bench.pretrain.methods.supervised import Supervised
from cgh_bench.pretrain.recipe import find
from cgh_bench.pretrain.run import ALLOWANCE, planned_bytes

RECIPE = find("moco_v2_r18_animals")


def test_activations_grow_with_the_images_of_a_pass_and_are_halved_by_mixed_precision():
    whole, parts, half = (
        planned_bytes(replace(RECIPE, **change)) for change in ({}, {"accumulate": 2}, {"precision": "bf16"})
    )
    with torch.device("meta"):
        method = RECIPE.method.build(RECIPE.architecture)
    weights = sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad)
    networks = ALLOWANCE * (2 + 1 + 2) * weights  # student and teacher, gradient, two of AdamW
    assert parts - networks == pytest.approx((whole - networks) / 2, rel=0.05)
    assert networks < half < whole


def test_classes_without_an_output_are_refused_before_training_and_memory_is_counted_without_labels(tmp_path):
    for name in "abc":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "0.png")
    recipe = replace(find("supervised_r18_animals"), method=Supervised(classes=2), data=str(tmp_path), batch_size=2)
    with pytest.raises(UserError, match=r"more than 2 classes; set method\.classes=3"):
        loop.training_images(recipe)
    assert planned_bytes(recipe) > 0  # on `meta`, where labels have no values


def test_too_little_memory_is_one_line_that_says_what_to_set(tmp_path, monkeypatch):
    def forward(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(type(RECIPE.method), "forward", forward)
    with pytest.raises(UserError, match="128 images per pass; set accumulate=2"):
        loop.train(RECIPE, "moco", tmp_path)
