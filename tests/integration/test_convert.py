"""The installed command, and every target's own network: mmdet, mmseg, detectron2, timm, transformers, torchvision."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import run
from framework_models import import_here

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, save
from cgh_bench.converters import parity
from cgh_bench.converters.base import find as find_converter
from cgh_bench.converters.convert import convert
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks
from cgh_bench.reading.loading import load
from cgh_bench.reading.reference_script import probe_images

CAFFE = Preprocessing("BGR", 255.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
ODD = Preprocessing("RGB", 1.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
PLAIN = Preprocessing("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def checkpoint(architecture: Architecture, preprocessing: Preprocessing) -> Checkpoint:
    torch.manual_seed(1)
    weights = {
        key: tensor + 0.2 * torch.rand_like(tensor) if tensor.ndim == 1 else tensor
        for key, tensor in architecture.build().state_dict().items()
    }
    return Checkpoint("sample", architecture, weights, preprocessing, Origin("test"))


def require(target: str) -> None:
    if target in frameworks.FRAMEWORKS:
        try:
            frameworks.require_installed(target)
        except UserError as absent:
            pytest.skip(str(absent))
    else:
        pytest.importorskip({"huggingface": "transformers"}.get(target, target))


def out_of(target: str, folder: Path, suffix: str | None = None) -> Path:
    suffixes = find_converter(target).suffixes
    return folder / f"x{suffix or (suffixes[0] if suffixes else '')}"


def certify(target: str, given: Checkpoint, out: Path) -> None:
    require(target)
    certificate = convert(given, target, out)
    assert certificate["verdict"] == "same outputs"
    counters = sum(key.endswith("tracked") for key in given.weights) if target == "detectron2" else 0
    assert certificate["coverage"] == {"used": len(given.weights) - counters, "unused": [], "missing": []}
    assert max(stage["relative"] for stage in certificate["stages"]) < 1e-5
    assert min(stage["cosine"] for stage in certificate["stages"]) > 0.999999
    assert load(out).id == given.id


R18, R50 = ResNet("resnet18"), ResNet("resnet50")
MORE = [  # timm and Hugging Face in the default set: test_timm_family.py, test_vit.py
    ("mmdet", R18, ODD),
    ("huggingface", R18, PLAIN),
    ("timm", R18, ODD),
    ("mmdet", dataclasses.replace(R50, stride_in_1x1=True), CAFFE),
    ("mmdet", ResNet("resnext50_32x4d"), PLAIN),
    ("mmseg", ResNet("resnet50", "deep"), ODD),
    ("mmseg", dataclasses.replace(R50, stride_in_1x1=True), CAFFE),
    ("detectron2", dataclasses.replace(R50, stride_in_1x1=True), CAFFE),
    ("detectron2", ResNet("wide_resnet50_2"), ODD),
    ("detectron2", ResNet("resnext50_32x4d"), Preprocessing()),
    ("timm", ResNet("resnet50", "deep"), ODD),
    ("timm", ResNet("wide_resnet50_2"), Preprocessing()),
    ("huggingface", dataclasses.replace(R50, stride_in_1x1=True), ODD),
    ("torchvision", ResNet("resnext50_32x4d"), CAFFE),
]


def test_certified_by_a_process_of_the_framework(tmp_path: Path) -> None:
    certify("detectron2", checkpoint(R18, CAFFE), out_of("detectron2", tmp_path))


def test_certified_in_openmmlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which imports it for other tests anyway; `test_certified_more` starts one."""
    import_here("mmdet", monkeypatch)

    def outputs(framework: str, weights: Path, fragment: Path, pixels: torch.Tensor) -> parity.Outputs:
        torch.save(pixels, images := tmp_path / "images.pt")
        files = {"weights": weights, "fragment": fragment, "images": images, "out": tmp_path / "out.pt"}
        options = [f"--{name}={value}" for name, value in {"framework": framework, **files}.items()]
        monkeypatch.setattr(sys, "argv", ["openmmlab.forward", *options])
        importlib.import_module("cgh_bench.transfer_configs.openmmlab.forward").main()
        answer = torch.load(files["out"], weights_only=True)
        return parity.Outputs(answer["stages"], **json.loads(answer["report"]))

    monkeypatch.setattr(parity, "foreign_outputs", outputs)
    certify("mmdet", checkpoint(R18, ODD), out_of("mmdet", tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "architecture", "preprocessing"), MORE)
def test_certified_more(target: str, architecture: Architecture, preprocessing: Preprocessing, tmp_path: Path) -> None:
    for suffix in find_converter(target).suffixes or (None,):
        certify(target, checkpoint(architecture, preprocessing), out_of(target, tmp_path, suffix))


WRONG = {
    "mmdet": [("bgr_to_rgb=True", "bgr_to_rgb=False"), ("style='pytorch'", "style='caffe'")],
    "detectron2": [('FORMAT: "RGB"', 'FORMAT: "BGR"'), ("STRIDE_IN_1X1: false", "STRIDE_IN_1X1: true")],
}


@pytest.mark.slow
@pytest.mark.parametrize("target", list(WRONG))
def test_the_certificate_sees_wrong_channels_and_strides(target: str, tmp_path: Path) -> None:
    """What goes wrong in the field (mmdetection#9111, detectron2#778): right tensors, wrong channels or stride."""
    require(target)
    given, path, converter = checkpoint(R50, ODD), out_of(target, tmp_path), find_converter(target)
    converter.write(given, path)
    [(name, text)] = converter.fragments(given, path).items()
    source = parity.source_outputs(given, probe_images()).stages
    for right, wrong in [("", ""), *WRONG[target]]:
        (tmp_path / name).write_text(text.replace(right, wrong) if right else text)
        assert right in text
        found = converter.outputs(path, probe_images())
        assert bool(parity.verdict(found, parity.compare(source, found.stages))) == bool(right), (right, wrong)


DETECTOR = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import ops
ops.install()
from mmengine.config import Config
from mmdet.registry import MODELS
import mmdet.models
from mmengine.logging import HistoryBuffer
text = '''
backbone = dict(type='ResNet', depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,),
                style='caffe')
shared_head = dict(type='ResLayer', depth=50, stage=3, stride=2, dilation=1, style='caffe')
model = dict(data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False))
'''
config = Config.fromstring(text, '.py')
torch.manual_seed(0)
backbone, head = MODELS.build(config.backbone), MODELS.build(config.shared_head)
for module in (*backbone.modules(), *head.modules()):
    if isinstance(module, torch.nn.BatchNorm2d):
        module.running_mean.normal_(); module.running_var.uniform_(0.5, 2); module.weight.data.uniform_(0.5, 1.5)
backbone.eval(); head.eval()
state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
state |= {f'roi_head.shared_head.{k}': v for k, v in head.state_dict().items()}
state |= {'rpn_head.rpn_conv.weight': torch.ones(1)}
hub = {'log_scalars': {'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}}
meta = {'cfg': config.pretty_text, 'mmengine_version': 'x'}
torch.save({'meta': meta, 'state_dict': state, 'message_hub': hub}, sys.argv[2])
x = torch.load(sys.argv[3], weights_only=True)
with torch.inference_mode():
    torch.save(head(backbone(x)[0]), sys.argv[4])
"""


@pytest.mark.slow
def test_a_real_c4_detector_is_read_so_that_it_computes_the_same(tmp_path: Path) -> None:
    """mmdet's own caffe backbone and shared head, with a HistoryBuffer; the last stage is the head's."""
    require("mmdet")
    checkpoint_path, images, out = (tmp_path / name for name in ("d.pth", "i.pt", "o.pt"))
    prepared = CAFFE(probe_images().float() / 255)
    torch.save(prepared, images)
    folder = frameworks.find("mmdet").path
    command = [sys.executable, "-c", DETECTOR, *map(str, (folder, checkpoint_path, images, out))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    read = load(checkpoint_path)
    assert (read.origin.source, read.preprocessing) == ("mmdet", CAFFE)
    assert read.architecture == dataclasses.replace(R50, stride_in_1x1=True)
    with torch.inference_mode():
        ours = read.backbone().pyramid(prepared)["layer4"]
    torch.testing.assert_close(ours, torch.load(out, weights_only=True), rtol=1e-4, atol=1e-4)


# The command


def test_the_command(tmp_path: Path) -> None:
    save(checkpoint(R18, ODD), tmp_path / "a.safetensors")
    done = run("convert", "a.safetensors", "--to", "torchvision", "-o", "b.pth", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [certificate] = json.loads(done.stdout)
    assert certificate["verdict"] == "same outputs"
    assert json.loads((tmp_path / "b.pth.certificate.json").read_text())["verdict"] == "same outputs"
    shown = run("inspect", "b.pth", cwd=tmp_path)
    assert shown.returncode == 0
    assert "resnet18" in shown.stdout
    several = run("convert", "*.pth", "a.safetensors", "--to", "mmdet", "-o", "out", "--no-verify", cwd=tmp_path)
    assert several.returncode == 0, several.stderr
    assert {p.name for p in (tmp_path / "out").glob("*.pth")} == {"a.mmdet.pth", "b.mmdet.pth"}
    assert "--no-verify" in several.stdout


def test_the_commands_exit_codes(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "nothing.pth")
    zeros = {k: torch.zeros_like(v) for k, v in checkpoint(R18, ODD).weights.items()}
    torch.save(zeros, tmp_path / "zeros.pth")
    for arguments, code, what in (
        (("convert", "nothing.pth", "--to", "mmdet"), 2, "no ResNet"),
        (("convert", "absent.pth", "--to", "mmdet"), 2, "no such file"),
        (("convert", "zeros.pth", "--to", "torchvision", "-o", "z.pth"), 1, "cannot be compared"),
        (("inspect", "nothing.pth"), 1, "cannot be used"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert what in done.stderr
    assert not (tmp_path / "z.pth").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run("convert", "random:resnet18", "--to", "detectron2", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "would write random_resnet18.detectron2.pkl: resnet18" in done.stdout
    assert not list(tmp_path.iterdir())
