"""The losses of twenty steps of each recipe, as they were when it was proven: a change of numbers must be meant.

`python tests/parity/test_pretrain_golden.py NAME…` writes those of NAME in `golden/pretrain.json` anew.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from pretrain_process import TINY_CGH, TINY_MOCO, made_up

from cgh_bench import data
from cgh_bench.core.registry import registered
from cgh_bench.data.image_set import ColourImages, GreyImages
from cgh_bench.pretrain import train as loop

RECIPES = registered("cgh_bench.pretrain.methods", "RECIPES")
GOLDEN = Path(__file__).with_name("golden") / "pretrain.json"
PIXELS, QUEUE = 48, 512
load = data.load


def small(recipe):
    """The recipe, small: twenty steps of sixteen images, views and queue cut down to those of the animals."""
    method, augments = recipe.method, recipe.views.augments
    if hasattr(method, "queue_length"):
        method = replace(method, queue_length=min(QUEUE, method.queue_length))
    shrink = min(1, PIXELS / augments[0].size)
    views = replace(recipe.views, augments=tuple(replace(a, size=round(shrink * a.size)) for a in augments))
    # A low rate: the comparison is of formulas, not of how rounding grows over the steps of another processor.
    return replace(recipe, method=method, views=views, epochs=1, batch_size=16, warmup_epochs=0, base_lr=1e-4)


RECIPES = {
    "cgh": replace(TINY_CGH, epochs=4, base_lr=1e-4),
    "moco_v2": replace(TINY_MOCO, epochs=4, base_lr=1e-4),
    **{
        name: small(recipe)
        for name, recipe in registered("cgh_bench.pretrain.methods", "RECIPES").items()
        if recipe.epochs
    },
}


def images(name, split, cache=None):
    """The first 320 animals, or made-up ones, in colour in the place of photographs."""
    if name == "animals":
        animals = load(name, split)
        assert isinstance(animals, GreyImages)
        return replace(animals, pixels=animals.pixels[:320], labels=animals.labels[:320])
    if name == "made-up":
        return made_up()
    coarse = torch.rand(320, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    pixels = (torch.nn.functional.interpolate(coarse, (60, 60), mode="bilinear") * 255).byte()
    return ColourImages("coloured", tuple("0123456789"), np.arange(320) % 10, "1" * 16, pixels.numpy())


def losses(name, folder):
    loop.train(RECIPES[name], name, folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    unfit = ("images_per_second", "seconds")
    return [{key: round(value, 6) for key, value in line.items() if key not in unfit} for line in lines]


QUICK = ("cgh", "moco_v2")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_twenty_steps_are_as_they_were(name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", images)
    monkeypatch.setattr(loop, "STEPS_PER_LOG_LINE", 1)
    golden = json.loads(GOLDEN.read_text())[name]
    got = losses(name, tmp_path)
    assert len(got) == len(golden) == 20
    for a, b in zip(got, golden, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-6), a["step"]


def test_every_recipe_is_held():
    assert json.loads(GOLDEN.read_text()).keys() == RECIPES.keys()


def main(names):
    """Write the golden losses of `names`."""
    import tempfile

    torch.set_num_threads(1)
    data.load = images
    loop.STEPS_PER_LOG_LINE = 1
    written = json.loads(GOLDEN.read_text())
    with tempfile.TemporaryDirectory() as folder:
        written |= {name: losses(name, Path(folder) / name) for name in names}
    GOLDEN.write_text(
        "{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(map(json.dumps, v)) + "\n]" for k, v in written.items()) + "\n}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
