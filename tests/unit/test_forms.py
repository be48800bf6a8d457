"""The forms in which people have weights: each is read, or refused with what to do, in one line."""

import argparse
import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from origins import resnet, trunk, vit
from torch import Tensor

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import without_memory
from cgh_bench.reading import recognition
from cgh_bench.reading.inspection import inspect
from cgh_bench.reading.loading import load
from cgh_bench.reading.weights_file import WeightsFile

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(resnet().state_dict())


def saved(folder: Path, document: Any, name: str = "x.pth") -> Path:
    torch.save(document, folder / name)
    return folder / name


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


def warm_up(step: int) -> float:
    return 1.0


def wrapped_by_fsdp(state: State, folder: Path) -> Path:
    inside = "layer1._fsdp_wrapped_module._checkpoint_wrapped_module."
    return saved(folder, {f"_fsdp_wrapped_module.{k.replace('layer1.', inside)}": v for k, v in state.items()})


def archive_of_numpy(state: State, folder: Path) -> Path:
    np.savez(folder / "x.npz", **{key: tensor.numpy() for key, tensor in state.items()})
    return folder / "x.npz"


def beside_objects_of_the_user(state: State, folder: Path) -> Path:
    """A dataclass of their own, and the function of a scheduler, which is no attack."""
    schedule = functools.partial(warm_up, 2)
    return saved(folder, {"state_dict": state, "settings": Settings(), "schedule": schedule})


def folder_of_accelerate(state: State, folder: Path) -> Path:
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    torch.save({"state": {}}, folder / "optimizer.bin")
    return folder


def in_several_files(state: State, folder: Path) -> Path:
    keys = list(state)
    parts = {"model-1-of-2.safetensors": keys[::2], "model-2-of-2.safetensors": keys[1::2]}
    for name, of in parts.items():
        safetensors.torch.save_file({key: state[key] for key in of}, folder / name, {"format": "pt"})
    index = {"weight_map": {key: name for name, of in parts.items() for key in of}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


READ = (wrapped_by_fsdp, archive_of_numpy, beside_objects_of_the_user, folder_of_accelerate, in_several_files)


@pytest.mark.parametrize("form", READ)
def test_a_form_that_is_read(form: Callable[[State, Path], Path], state: State, tmp_path: Path) -> None:
    read = load(form(state, tmp_path))
    assert read.architecture == ResNet("resnet18")
    assert all(torch.equal(tensor, state[key]) for key, tensor in read.weights.items())


def test_names_with_dots(state: State, tmp_path: Path) -> None:
    names = [load(saved(tmp_path, state, f"resnet18.{tag}.pth.tar")).name for tag in ("a1_in1k", "tv_in1k")]
    assert names == ["resnet18.a1_in1k", "resnet18.tv_in1k"]


def distributed(folder: Path) -> Path:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": {"conv1.weight": torch.rand(4)}}, checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)
    return folder


def shared_among_processes(folder: Path) -> Path:
    """As a pickle names it; a real one needs processes."""
    from torch.distributed.tensor.placement_types import Replicate

    return saved(folder, {"w": torch.ones(2), "placement": Replicate()})


def without_values(folder: Path) -> Path:
    with torch.device("meta"):
        return saved(folder, torchvision.models.resnet18().state_dict())


def program(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/code/m.py", b"")
    return folder / "x.pt"


def arrays_of_jax(folder: Path, save: Callable[..., None] = np.savez) -> Path:
    file = io.BytesIO()
    save(file, **{"Transformer/encoderblock_0/LayerNorm_0/scale": np.ones(3)})
    (folder / "x.npz").write_bytes(file.getvalue())
    return folder / "x.npz"


def with_kernels(folder: Path, *shape: int) -> Path:
    return saved(folder, trunk(resnet()) | {"conv1.weight": torch.ones(shape)})


def of_deeplab(folder: Path) -> Path:
    """Source: facebookresearch/detectron2 projects/DeepLab/deeplab/resnet.py."""
    kernels = {"stem.conv1": (64, 3, 3, 3), "stem.conv2": (64, 64, 3, 3), "stem.conv3": (128, 64, 3, 3)}
    shapes = {**kernels, "res2.0.conv1": (64, 128, 1, 1), "res5.0.conv1": (512, 1024, 1, 1)}
    return saved(folder, {"model": {f"backbone.{key}.weight": torch.ones(shape) for key, shape in shapes.items()}})


def of_torchvision(folder: Path, name: str) -> Path:
    return saved(folder, {key: torch.ones(1) for key in torchvision.models.get_model(name).state_dict()})


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "flat parameters of FSDP": (lambda at: saved(at, {"_flat_param": torch.ones(4)}), "FULL_STATE_DICT"),
    "distributed checkpoint": (distributed, "format_utils dcp_to_torch .*pytorch_model_fsdp_0 whole.pth"),
    "a part of one": (lambda at: next(distributed(at).glob("*/*.distcp")), "format_utils dcp_to_torch"),
    "DTensor": (shared_among_processes, "full_state_dict=True"),
    "meta tensors": (without_values, "conv1.weight is .* without values"),
    "TorchScript": (program, "save its state_dict"),
    "names of JAX": (arrays_of_jax, "timm.create_model"),
    "compressed arrays": (functools.partial(arrays_of_jax, save=np.savez_compressed), "numpy.savez"),
    "13 channels": (lambda at: with_kernels(at, 64, 13, 7, 7), "takes 13 channels; accepted"),
    "twice as wide": (lambda at: with_kernels(at, 128, 3, 7, 7), "2 times as wide.*cgh_bench.wrap"),
    "5x5": (lambda at: with_kernels(at, 64, 3, 5, 5), "5x5 to 64 channels; accepted: 7x7"),
    **{
        f"torchvision's {name}": (
            functools.partial(of_torchvision, name=name),
            "torchvision's networks.*cgh_bench.wrap",
        )
        for name in ("vit_b_32", "swin_t", "convnext_tiny", "regnet_y_400mf")
    },
    "detectron2's deep stem": (of_deeplab, "stem is of three convolutions.*cgh_bench.wrap"),
    "a list of tensors": (lambda at: saved(at, [torch.ones(2)] * 3), r"holds 3 tensors \(0, 1, 2"),
    "two networks": (lambda at: saved(at, {"a": trunk(resnet()), "b": trunk(resnet(seed=1))}), "--branch: a, b"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_a_form_that_is_refused_says_what_to_do(form: str, tmp_path: Path) -> None:
    make, advice = REFUSED[form]
    with pytest.raises(UserError, match=advice) as refused:
        load(make(tmp_path))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300


NETWORKS = (
    *("resnet50_gn", "resnetv2_50x1_bit", "seresnet18", "ecaresnet50t", "skresnet18", "resnest14d", "resnet50_clip"),
    *("resnext101_32x4d", "resnet26d", "convnext_tiny", "regnety_002", "swin_tiny_patch4_window7_224"),
)


@pytest.mark.parametrize("name", NETWORKS)
def test_bare_files_of_timm_are_told_by_their_shapes(name: str) -> None:
    """Group norms, BiT, squeeze and excitation, CLIP's ResNets, …: one network only has these tensors."""
    with without_memory():
        state = timm.create_model(name).state_dict()
    found = recognition.recognise(WeightsFile(Path(name), "", state, {})).networks
    assert [each.architecture for each in found.values()] == [Timm(name)]


def test_what_several_networks_of_timm_have() -> None:
    with without_memory():
        state = timm.create_model("resnet50d").state_dict()
    with pytest.raises(UserError, match="resnet50d, resnetaa50d, resnetblur50d.*--arch"):
        recognition.recognise(WeightsFile(Path("x"), "", state, {}))


def timms(model: Any, images: Tensor) -> Tensor:
    model.eval()
    found: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
    return found


@torch.inference_mode()
def test_networks_of_timm_with_a_classifier(tmp_path: Path) -> None:
    """A whole pickled network, and MAE's fine-tuned with `global_pool`."""
    images = torch.rand(1, 3, 64, 64)
    whole = timm.create_model("convnext_atto", num_classes=3)
    mae = vit(num_classes=10, global_pool="avg")
    document = {"model": mae.state_dict(), "args": argparse.Namespace(model="vit_tiny_patch16")}
    for model, written in ((whole, whole), (mae, document)):
        read = load(saved(tmp_path, written))
        torch.testing.assert_close(read.backbone(copy=False)(images), timms(model, images))


@torch.inference_mode()
def test_a_resnet_of_transformers_that_strides_early(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    shape = {"depths": [1] * 4, "hidden_sizes": [16] * 4, "embedding_size": 16, "layer_type": "basic"}
    model = ResNetModel(ResNetConfig(**shape, downsample_in_first_stage=True)).eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load(tmp_path).backbone(copy=False)(images), model(images).pooler_output.flatten(1))


def test_nan_is_a_problem_that_inspect_ends_with(state: State, tmp_path: Path) -> None:
    report = inspect(saved(tmp_path, state | {"bn1.bias": torch.full((64,), torch.nan)}))
    assert "first bn1.bias" in report["problem"] and not report["commands"]
    with pytest.raises(UserError, match=r"NaN or infinity in bn1\.bias; "):
        load(tmp_path / "x.pth")
