"""What `inspect` says of trained, untrained, broken and foreign files."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from origins import moco, resnet
from rich.console import Console
from torch import nn

from cgh_bench.checkpoint import random_checkpoint, save
from cgh_bench.core.errors import UserError
from cgh_bench.reading.health import checks
from cgh_bench.reading.inspection import Report, inspect, render
from cgh_bench.reading.loading import load


def written(tmp_path: Path, document: Any) -> Path:
    torch.save(document, tmp_path / "c.pth")
    return tmp_path / "c.pth"


def shown(report: Report) -> str:
    console = Console(width=300, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(report))
    return console.export_text()


def test_a_moco_checkpoint(tmp_path: Path) -> None:
    path = moco(2).write(tmp_path)
    before = time.process_time()
    report = inspect(path)
    assert time.process_time() - before < 3  # seconds of work, whoever else works
    assert json.loads(json.dumps(report)) == report
    assert (report["source"], report["branch"], report["branches"]) == ("moco_v2", "student", ["student", "teacher"])
    assert report["architecture"] == {"name": "resnet18", "stem": "imagenet", "stride_in_1x1": False}
    assert (report["used"], report["tensors"]) == (120, 250)
    assert report["ignored"]["encoder_q.fc"] == 4
    assert report["preprocessing"]["certainty"] == "implied"
    text = shown(report)
    for part in ("MoCo v2", "teacher (--branch)", "resnet18", "0.485", "convert", "implied by its origin"):
        assert part in text


def test_our_own_file_states_everything(tmp_path: Path) -> None:
    save(random_checkpoint("resnet18"), tmp_path / "c.safetensors")
    report = inspect(tmp_path / "c.safetensors")
    assert (report["source"], report["preprocessing"]["certainty"]) == ("ours", "stated")


def remarks(model: nn.Module) -> dict[str, str]:
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    return {check["remark"]: check["verdict"] for check in checks(weights)}


def test_untrained_weights_look_untrained() -> None:
    found = remarks(random_checkpoint("resnet18").backbone())
    assert found["all BatchNorm statistics have their initial values: this network looks untrained"] == "bad"
    assert found["weight statistics match random initialisation: this network looks untrained"] == "bad"
    assert any(verdict == "doubt" and "hardly correlate" in remark for remark, verdict in found.items())


def test_trained_weights_look_trained() -> None:
    model = resnet(seed=3)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 9, 9), 3, 1)
    with torch.no_grad():
        model.conv1.weight.copy_(smooth)
    found = remarks(model)
    assert set(found.values()) == {"ok"}
    assert any("over 103 batches" in remark for remark in found)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("layer1.0.conv1.weight", torch.inf, "NaN or infinity, first layer1.0.conv1.weight"),
        ("layer4.1.conv2.weight", 0.0, "constant, first layer4.1.conv2.weight"),
        ("bn1.running_var", -1.0, "variance is negative"),
        ("bn1.running_var", 0.0, "1 layers are zero, first bn1.running_var"),
    ],
)
def test_broken_weights(tmp_path: Path, key: str, value: float, what: str) -> None:
    state = resnet().state_dict()
    state[key].fill_(value)
    report = inspect(written(tmp_path, state))
    assert any(check["verdict"] == "bad" and what in check["remark"] for check in report["checks"])


def test_channels_that_are_constant_are_no_fault() -> None:
    """Published networks have some: of EfficientNet-Lite0 on ImageNet, 100 have the variance 0."""
    model = resnet(seed=3)
    model.bn1.running_var[:2] = 0
    (remark,) = (remark for remark in remarks(model) if "statistics" in remark)
    assert remark.endswith("; 2 of 4,800 channels are constant")
    assert remarks(model)[remark] == "ok"


def test_an_average_beside_the_network_can_be_chosen(tmp_path: Path) -> None:
    """A vision transformer's training checkpoint of DeiT, whose average no rule knows; its names say where it is."""
    torch.manual_seed(0)
    model, averaged = (random_checkpoint("vit_tiny_patch16_224", seed).weights for seed in (0, 1))
    momentum = {"state": {0: {"exp_avg": torch.ones(2)}}}
    path = tmp_path / "my run.pth"
    torch.save({"model": model, "model_ema": averaged, "optimizer": momentum}, path)
    report = inspect(path)
    assert (report["source"], report["branch"], report["branches"]) == ("timm", "model", ["model", "model_ema"])
    assert report["ignored"] == {"model_ema": len(averaged), "optimizer": 1}
    text = shown(inspect(path, branch="model_ema"))
    assert f"cgh-bench eval knn --ckpt '{path}' --branch model_ema --data FOLDER" in text
    assert torch.equal(load(path, branch="model_ema").weights["cls_token"], averaged["cls_token"])


def test_a_file_without_a_network_is_shown_all_the_same(tmp_path: Path) -> None:
    report = inspect(written(tmp_path, {"state_dict": nn.Linear(2, 2).state_dict(), "epoch": 3}))
    assert "no ResNet" in report["problem"]
    assert report["facts"] == {"epoch": "3"}
    assert "no ResNet" in shown(report)


def test_names_from_the_file_are_not_markup(tmp_path: Path) -> None:
    state = resnet().state_dict() | {"[red]evil.\x1b[31m.x": torch.ones(1)}
    text = shown(inspect(written(tmp_path, state)))
    assert "[red]evil" in text
    assert "\x1b" not in text


def test_errors_of_the_user(tmp_path: Path) -> None:
    path = written(tmp_path, resnet().state_dict())
    (tmp_path / "link.pth").symlink_to("gone.pth")
    for name, message in (("nothing", "no such file"), ("x.pth", "c.pth"), ("link.pth", "link to gone.pth")):
        with pytest.raises(UserError, match=message):
            inspect(tmp_path / name)
    torch.save({}, tmp_path / "empty.pth")
    assert "--arch" not in inspect(tmp_path / "empty.pth")["problem"]
    torch.save({"optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}, tmp_path / "optimiser.pth")
    assert "optimiser" in inspect(tmp_path / "optimiser.pth")["problem"]
    for option in ({"branch": "x"}, {"source": "x"}, {"source": "moco_v2"}, {"arch": "resnet50"}):
        with pytest.raises(UserError, match=next(iter(option.values()))):
            inspect(path, **option)


def test_a_stem_without_7x7_kernels(tmp_path: Path) -> None:
    path = written(tmp_path, resnet(stem="cifar").state_dict())
    assert "stem.padding=2" in inspect(path)["problem"]
    settings = ["stem.stride=1", "stem.padding=1", "stem.pool=false"]
    assert inspect(path, settings=settings)["architecture"]["stem"] == "cifar"
    assert dataclasses.asdict(random_checkpoint("resnet18").architecture)["stem"] == "imagenet"
