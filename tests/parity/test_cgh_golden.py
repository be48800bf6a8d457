"""The losses of twenty steps, as they were when the methods were proven: a change of numbers must be meant.

`python tests/parity/test_cgh_golden.py` writes `golden/pretrain.json` anew.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from pretrain_process import TINY_CGH, TINY_MOCO, made_up

from cgh_bench import data
from pretrain import train as loop

GOLDEN = Path(__file__).with_name("golden") / "pretrain.json"
# A low rate: the comparison is of formulas, not of how rounding grows over the steps of another processor.
RECIPES = {
    name: replace(recipe, epochs=4, base_lr=1e-4) for name, recipe in (("cgh", TINY_CGH), ("moco_v2", TINY_MOCO))
}


def losses(name, folder):
    loop.train(RECIPES[name], name, folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    unfit = ("images_per_second", "seconds")
    return [{key: round(value, 6) for key, value in line.items() if key not in unfit} for line in lines]


@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_are_as_they_were(name, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: made_up())
    monkeypatch.setattr(loop, "STEPS_PER_LOG_LINE", 1)
    golden = json.loads(GOLDEN.read_text())[name]
    got = losses(name, tmp_path)
    assert len(got) == len(golden) == 20
    for a, b in zip(got, golden, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-6), a["step"]


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    data.load = lambda *_: made_up()
    loop.STEPS_PER_LOG_LINE = 1
    with tempfile.TemporaryDirectory() as folder:
        written = {name: losses(name, Path(folder) / name) for name in RECIPES}
    GOLDEN.write_text(
        "{\n" + ",\n".join(f'"{k}": [\n' + ",\n".join(map(json.dumps, v)) + "\n]" for k, v in written.items()) + "\n}\n"
    )
