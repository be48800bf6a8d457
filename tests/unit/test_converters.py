"""Names, files and refusals of every target; what happens when the proof fails. The frameworks: tests/integration."""

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.controls import Control
from cgh_bench.backbones.module import from_module
from cgh_bench.backbones.resnet import ARCHS, ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.transformers import Transformers
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, random_checkpoint
from cgh_bench.cli.listing import list_
from cgh_bench.converters import convert as conversion
from cgh_bench.converters import parity
from cgh_bench.converters.base import find as find_converter
from cgh_bench.converters.convert import convert
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import sha256
from cgh_bench.core.registry import registered
from cgh_bench.networks.resnet import ResNetBackbone
from cgh_bench.reading.loading import load
from cgh_bench.transfer_configs.contract import carried

TARGETS = list(registered("cgh_bench.converters", "CONVERTERS"))
CAFFE = Preprocessing("BGR", 255.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgh_bench.core.files.os.fsync", lambda handle: None)


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    """Small, with statistics and counters that are not the initial ones."""
    random = random_checkpoint("resnet18")
    weights = {
        key: tensor + 3 if key.endswith("tracked") else tensor + 0.01 * torch.rand_like(tensor)
        for key, tensor in random.weights.items()
    }
    origin = Origin("moco_v2", "moco.pth", "0" * 64, "teacher", ignored=("queue",))
    return dataclasses.replace(random, name="trained", weights=weights, origin=origin)


def place(target: str, folder: Path, suffix: str | None = None) -> Path:
    known = find_converter(target).suffixes
    return folder / f"x{suffix or (known[0] if known else '')}"


def empty(architecture: Architecture) -> Checkpoint:
    weights = architecture.skeleton.state_dict()
    return Checkpoint("empty", architecture, weights, Preprocessing(), Origin("random"))


def supported() -> Iterator[tuple[str, Architecture]]:
    for target in TARGETS:
        for name in (name for name in ARCHS if not re.search("101|152", name)):  # which have more of the same blocks
            for stem in ("imagenet", "deep", "cifar"):
                yield target, ResNet(name, stem)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", TARGETS)
def test_names_are_total_and_injective(target: str) -> None:
    converter, tried = find_converter(target), 0
    for name, architecture in supported():
        if name != target:
            continue
        try:
            converter.require_supported(empty(architecture))
        except UserError:
            continue
        keys = list(architecture.shapes)
        assert len({converter.rename(key, architecture) for key in keys}) == len(keys)
        tried += 1
    assert tried >= 3


@pytest.mark.parametrize("target", TARGETS)
def test_cifar_stems_are_refused_by_all(target: str, trained: Checkpoint, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = ResNetBackbone(ResNet("resnet18", "cifar")).state_dict()
    weights = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in shapes.items()}
    small = dataclasses.replace(trained, architecture=ResNet("resnet18", "cifar"), weights=weights)
    with pytest.raises(UserError, match=r"cifar|imagenet"):
        find_converter(target).write(small, place(target, tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_list_of_families_says_what_is_offered() -> None:
    one_of_each = {
        "control": Control("pixels"),
        "resnet": ResNet("resnet18"),
        "vit": ViT("vit_tiny_patch16_32"),
        "module": from_module(torch.nn.Conv2d(3, 4, 3), None, (32, 32)),
        "timm": Timm("convnext_atto"),
        "transformers": Transformers("dinov2", '{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}'),
    }
    lines = CliRunner().invoke(list_, ["backbones"]).stdout.splitlines()
    assert {line.split()[0] for line in lines} == one_of_each.keys()
    for line in lines:
        offered = line.partition("Supports: ")[2].split(", ")
        architecture = one_of_each[line.split()[0]]
        for target in TARGETS:
            try:
                find_converter(target).require_supported(empty(architecture))
            except UserError:
                assert f"to {target}" not in offered
            else:
                assert f"to {target}" in offered
        dense = {use.split()[0] for use in offered} & {"detection", "segmentation"}
        assert len(dense) == (2 if carried.layout(architecture) and architecture.IN_DETECTORS else 0)
        assert {"frozen", "fine-tuning"} <= set(offered)


@pytest.mark.parametrize(
    ("target", "suffix"),
    [(target, suffix) for target in TARGETS for suffix in find_converter(target).suffixes or ("",)],
)
def test_written_and_read_back(target: str, suffix: str, trained: Checkpoint, tmp_path: Path) -> None:
    path = place(target, tmp_path, suffix)
    find_converter(target).write(trained, path)
    for read in (find_converter(target).read(path), load(path)):
        assert (read.name, read.origin, read.id) == (trained.name, trained.origin, trained.id)
        assert all(torch.equal(read.weights[key], tensor) for key, tensor in trained.weights.items())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3), caffe=st.booleans())
def test_any_route_ends_where_it_began(
    route: list[str], caffe: bool, trained: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bgr_free = caffe and not {"timm", "huggingface"} & set(route)
    checkpoint = dataclasses.replace(trained, preprocessing=CAFFE) if bgr_free else trained
    at = checkpoint
    for target in route:
        path = place(target, tmp_path_factory.mktemp("route"))
        find_converter(target).write(at, path)
        at = load(path)
    assert (at.id, at.preprocessing, at.origin) == (checkpoint.id, checkpoint.preprocessing, checkpoint.origin)


@pytest.mark.parametrize("target", ["timm", "huggingface"])
def test_bgr_is_refused_where_it_cannot_be_said(target: str, trained: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BGR"):
        find_converter(target).write(dataclasses.replace(trained, preprocessing=CAFFE), place(target, tmp_path))


def test_fragments_say_what_the_weights_need(trained: Checkpoint, tmp_path: Path) -> None:
    caffe = dataclasses.replace(trained, preprocessing=CAFFE)
    text = find_converter("mmdet").fragments(caffe, tmp_path / "w.pth")["w.pth.config.py"]
    config: dict[str, dict[str, dict[str, object]]] = {}
    exec(text, config)
    assert config["model"]["data_preprocessor"] == {
        "type": "DetDataPreprocessor", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0],
        "bgr_to_rgb": False, "pad_size_divisor": 32,
    }  # fmt: skip
    assert config["model"]["backbone"]["init_cfg"] == {
        "type": "Pretrained",
        "checkpoint": "{{ fileDirname }}/w.pth",
    }
    yaml = find_converter("detectron2").fragments(trained, tmp_path / "w.pkl")["w.pkl.config.yaml"]
    for line in ('FORMAT: "RGB"', "PIXEL_MEAN: [123.675, 116.28, 103.53]", "STRIDE_IN_1X1: false", "DEPTH: 18"):
        assert line in yaml


# The proof


def test_a_certificate_that_passes(trained: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "x.safetensors"
    certificate = convert(trained, "torchvision", out)
    assert certificate == json.loads((tmp_path / "deep" / "x.safetensors.certificate.json").read_text())
    assert certificate["verdict"] == "same outputs"
    assert certificate["coverage"] == {"used": 120, "unused": [], "missing": []}
    assert certificate["network"] == "torchvision.models.resnet18"
    assert certificate["checkpoint"]["architecture"]["name"] == "resnet18"
    assert certificate["checkpoint"]["origin"]["ignored"] == 1, "a number; the names may be thousands"
    assert [stage["stage"] for stage in certificate["stages"]] == ["input", "layer1", "layer2", "layer3", "layer4"]
    assert sorted(p.name for p in out.parent.iterdir()) == sorted(
        [
            "x.safetensors",
            "x.safetensors.certificate.json",
            "x.safetensors.preprocessing.json",
        ]
    )


def test_without_proof_the_certificate_says_so(trained: Checkpoint, tmp_path: Path) -> None:
    certificate = convert(trained, "mmdet", tmp_path / "x.pth", verify=False)
    assert certificate["verdict"] == "not verified"
    assert "stages" not in certificate


def spoil(monkeypatch: pytest.MonkeyPatch, **change: object) -> None:
    kind = type(find_converter("torchvision"))
    honest = kind.outputs

    def outputs(self: object, path: Path, pixels: torch.Tensor) -> parity.Outputs:
        found = honest(self, path, pixels)  # type: ignore[arg-type]
        stages = {k: v * change.get(k, 1) for k, v in found.stages.items()}  # type: ignore[operator]
        rest = {k: v for k, v in change.items() if k not in stages}
        return dataclasses.replace(found, stages=stages, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "outputs", outputs)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"layer3": 1.001}, "layer3 differs"),
        ({"input": -1}, "input differs"),
        ({"layer4": torch.nan}, "layer4 differs"),
        ({"unused": ["a.b"]}, "1 tensors are not used by the target"),
        ({"missing": ["a", "b", "c", "d", "e"]}, r"5 tensors are missing in the file (a, b, c)"),
    ],
)
def test_a_failed_proof_writes_nothing_and_loses_nothing(
    change: dict[str, object], why: str, trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.pth"
    out.write_text("an older conversion")
    spoil(monkeypatch, **change)
    with pytest.raises(CheckFailed, match=re.escape(why)):
        convert(trained, "torchvision", out)
    assert out.read_text() == "an older conversion"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pth", "x.pth.failed.json"]
    certificate = json.loads((tmp_path / "x.pth.failed.json").read_text())
    assert certificate["verdict"] == "failed"
    assert why in certificate["why"]


def test_a_writer_that_loses_something_is_caught_even_without_proof(
    trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(find_converter("torchvision"))
    honest = kind.write
    other = dataclasses.replace(trained, weights=dict(trained.weights) | {"bn1.bias": trained.weights["bn1.bias"] + 1})
    monkeypatch.setattr(kind, "write", lambda self, checkpoint, path: honest(self, other, path))
    with pytest.raises(CheckFailed, match="read back"):
        convert(trained, "torchvision", tmp_path / "x.pth", verify=False)
    assert not (tmp_path / "x.pth").exists()


def test_swapped_channels_are_caught(trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fragment is part of the proof: preprocessing written wrongly fails it."""
    kind = type(find_converter("torchvision"))
    honest = kind.fragments

    def fragments(self: object, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        return {k: v.replace('"RGB"', '"BGR"') for k, v in honest(self, checkpoint, path).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "fragments", fragments)
    with pytest.raises(CheckFailed, match="input differs"):
        convert(trained, "torchvision", tmp_path / "x.pth")


def test_weights_that_prove_nothing(trained: Checkpoint, tmp_path: Path) -> None:
    weights = {key: torch.zeros_like(tensor) for key, tensor in trained.weights.items()}
    with pytest.raises(CheckFailed, match="cannot be compared"):
        convert(dataclasses.replace(trained, weights=weights), "torchvision", tmp_path / "x.pth")


def test_a_missing_framework_is_told(trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGH_MM_PYTHON", "/nonexistent/python")
    with pytest.raises(UserError, match="CGH_MM_PYTHON"):
        convert(trained, "mmdet", tmp_path / "x.pth")
    with pytest.raises(UserError, match="CGH_MM_PYTHON"):
        conversion.preview({"x": tmp_path / "x.pth"}, "mmdet", lambda name: (trained, None))
    assert conversion.preview({"x": tmp_path / "x.pth"}, "mmdet", lambda name: (trained, None), verify=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "out", "what"),
    [("mmdet", "x.safetensors", "must end in"), ("torchvision", "", "must end in"), ("mmdt", "x", "mmdet")],
)
def test_bad_outputs(target: str, out: str, what: str, trained: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=what):
        convert(trained, target, tmp_path / out)


# Many inputs


def test_plans(tmp_path: Path) -> None:
    for name in ("a.pth.tar", "b.pth"):
        (tmp_path / name).write_bytes(b"x")
    out = tmp_path / "out"
    assert conversion.plan([f"{tmp_path}/a.pth.tar", f"{tmp_path}/b.pth"], "detectron2", out) == {
        f"{tmp_path}/a.pth.tar": out / "a.detectron2.pkl",
        f"{tmp_path}/b.pth": out / "b.detectron2.pkl",
    }
    assert conversion.plan([f"{tmp_path}/b.pth"], "mmdet", out) == {f"{tmp_path}/b.pth": out}
    assert conversion.plan(["random:resnet18"], "huggingface", None) == {
        "random:resnet18": Path("random_resnet18.huggingface")
    }
    (tmp_path / "b.ckpt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"several .* b.mmdet.pth|several"):
        conversion.plan([f"{tmp_path}/b.pth", f"{tmp_path}/b.ckpt"], "mmdet", None)


def test_one_failure_among_many_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, layer1=2)
    planned = {"random:resnet18": tmp_path / "a.pth", "random:resnet18:1": tmp_path / "b.pth"}
    with pytest.raises(CheckFailed, match=r"a\.pth was not written.*b\.pth was not written"):
        conversion.run(planned, "torchvision", lambda name: (load(name), None), verify=True)


@pytest.mark.parametrize("spelt", ["mine.pth", "./mine.pth", "sub/../mine.pth", "link.pth"])
def test_a_checkpoint_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelt: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.pth").write_bytes(b"weights")
    (tmp_path / "link.pth").symlink_to("mine.pth")
    with pytest.raises(UserError, match="is the checkpoint itself"):
        conversion.plan(["mine.pth"], "torchvision", Path(spelt))
    assert conversion.plan(["mine.pth"], "torchvision", None) == {"mine.pth": Path("mine.torchvision.safetensors")}


def test_a_folder_with_other_files_is_not_replaced(trained: Checkpoint, tmp_path: Path) -> None:
    """`convert CKPT --to huggingface -o FOLDER` deleted everything in FOLDER, the checkpoint included."""
    mine = tmp_path / "models"
    mine.mkdir()
    (mine / "precious.pth").write_text("weights")
    with pytest.raises(UserError, match="contains files"):
        convert(trained, "huggingface", mine)
    assert [p.name for p in mine.iterdir()] == ["precious.pth"]


def test_an_earlier_conversion_is_replaced_until_it_is_touched(trained: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    first = convert(trained, "huggingface", out, verify=False)
    assert convert(trained, "huggingface", out, verify=False)["sha256"] == first["sha256"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="contains files"):
        convert(trained, "huggingface", out, verify=False)
    assert (out / "notes.txt").exists()


def test_conversions_to_one_place_come_one_by_one(
    trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When four ran at once, some ended with tracebacks, or left the files of two."""
    out, replace = tmp_path / "hf", Path.replace

    def slow(self: Path, target: Path) -> Path:
        time.sleep(0.02)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slow)
    inputs = [
        dataclasses.replace(trained, weights=dict(trained.weights) | {"bn1.bias": trained.weights["bn1.bias"] + number})
        for number in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda each: convert(each, "huggingface", out, verify=False), inputs))
    left = json.loads((tmp_path / "hf.certificate.json").read_text())
    assert left in written
    assert left["sha256"] == {file.name: sha256(file) for file in sorted(out.iterdir())}
    assert find_converter("huggingface").read(out).id == left["checkpoint"]["id"]


def test_the_certificate_is_written_last_and_vouches_for_all_files(
    trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the renames, new weights stood beside an old certificate whose hash fitted."""
    out = tmp_path / "x.pth"
    convert(trained, "torchvision", out, verify=False)
    other = dataclasses.replace(trained, weights=dict(trained.weights) | {"bn1.bias": trained.weights["bn1.bias"] + 1})
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == "x.pth" and Path(target) == out:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(other, "torchvision", out, verify=False)
    assert not (tmp_path / "x.pth.certificate.json").exists()
    monkeypatch.undo()
    certificate = convert(other, "torchvision", out, verify=False)
    for name, digest in certificate["sha256_of_fragments"].items():
        assert sha256(tmp_path / name) == digest
