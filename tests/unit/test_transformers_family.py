"""Networks of transformers: read from what it writes, the same outputs at every stage, and back."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from cgh_bench import backbones
from cgh_bench.backbones.transformers import Transformers
from cgh_bench.checkpoint import save
from cgh_bench.converters.convert import convert
from cgh_bench.core.errors import UserError
from cgh_bench.networks.transformers import TransformersBackbone
from cgh_bench.reading.inspection import inspect, render
from cgh_bench.reading.loading import load

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
MAPS = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
WINDOWS = {"embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "image_size": 64, "window_size": 4}
HIERA = {
    "embed_dim": 8,
    "depths": [1, 1, 1],
    "num_heads": [1, 2, 2],
    "masked_unit_size": [4, 4],
    "query_stride": [2, 2],
    "num_query_pool": 2,
    "masked_unit_attention": [True, True, False],
}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "dinov2_with_registers": (TOKENS, "head"),
    "dinov3_vit": (TOKENS, "head"),
    "vit_mae": (TOKENS, "cls"),
    "beit": (TOKENS, "head"),
    "data2vec-vision": (TOKENS, "cls"),
    "ijepa": (TOKENS, "patch_mean"),
    "aimv2_vision_model": (TOKENS, "head"),
    "clip": ({"vision_config": TOKENS, "text_config": TEXT}, "head"),
    "siglip": ({"vision_config": TOKENS, "text_config": TEXT}, "head"),
    "siglip2": ({"vision_config": {**TOKENS, "num_patches": 16}, "text_config": TEXT}, "head"),
    "hiera": ({**HIERA, "image_size": [64, 64], "patch_size": [7, 7]}, "head"),
    "convnext": (MAPS, "head"),
    "convnextv2": (MAPS, "head"),
    "dinov3_convnext": (MAPS, "head"),
    "swin": (WINDOWS, "head"),
    "swinv2": (WINDOWS, "head"),
}
"""Small networks of each kind, and what their global feature is."""


def written(kind: str, folder: Path) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **KINDS[kind][0])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.rand_like(parameter))
    model.save_pretrained(folder)
    return getattr(model, "vision_model", model)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_every_stage_is_transformers(kind: str, tmp_path: Path) -> None:
    model = written(kind, tmp_path / "hub")
    found = load(tmp_path / "hub")
    assert isinstance(found.architecture, Transformers)
    assert found.origin.source == "huggingface"
    assert found.architecture.targets("layer4") == (KINDS[kind][1],)
    backbone = found.backbone()
    images = torch.randn(2, 3, *found.architecture.image_size)
    if kind == "vit_mae":
        model.config.mask_ratio = 0.0
        theirs = model(images, output_hidden_states=True, noise=torch.arange(16).expand(2, -1))
    elif kind == "siglip2":
        cut = torch.stack([convert_image_to_patches(image, 16) for image in images])
        theirs = model(cut, None, torch.tensor([[4, 4]] * 2), output_hidden_states=True)
    else:
        theirs = model(images, output_hidden_states=True)
    pooled, maps = backbone.global_and_pyramid(images)
    assert pooled.shape == (2, backbone.dim)
    for (stage, map_), hidden in zip(maps.items(), theirs.hidden_states[1:], strict=True):
        said = backbone.stages[stage]
        height, width = images.shape[-2:]
        assert map_.shape == (2, said.channels, height // said.stride, width // said.stride)
        flat = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden[:, -map_.shape[2] * map_.shape[3] :]
        if kind == "hiera":
            flat = theirs.reshaped_hidden_states[int(stage[5:])].flatten(1, 2)
        if kind.startswith("swin"):
            flat = theirs.reshaped_hidden_states[int(stage[5:])].flatten(2).transpose(1, 2)
        torch.testing.assert_close(map_.flatten(2).transpose(1, 2), flat)
    if KINDS[kind][1] == "head":
        torch.testing.assert_close(pooled, theirs.pooler_output)
    everything = (*backbone.stages, "head") if "head" in pooled_parts(backbone) else tuple(backbone.stages)
    assert backbone.pooled(images, everything).shape == (2, backbone.width(everything))
    assert backbones.from_fields(backbones.to_fields(found.architecture)) == found.architecture


def pooled_parts(backbone: Any) -> tuple[str, ...]:
    assert isinstance(backbone, TransformersBackbone)
    return backbone.ends


@torch.inference_mode()
def test_mae_is_a_vit(tmp_path: Path) -> None:
    """Nothing is masked or shuffled: the same weights in `ViTModel` give the same."""
    mae = written("vit_mae", tmp_path / "hub")
    vit = transformers.ViTModel(transformers.ViTConfig(**TOKENS), add_pooling_layer=False).eval()
    vit.load_state_dict(mae.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(load(tmp_path / "hub").backbone()(images), vit(images).last_hidden_state[:, 0])


@pytest.mark.usefixtures("libraries_here")
@pytest.mark.parametrize("kind", ["siglip", *(pytest.param(k, marks=pytest.mark.slow) for k in ("dinov3_vit", "swin"))])
def test_to_huggingface_and_back(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path / "hub")
    given = load(tmp_path / "hub")
    certificate = convert(given, "huggingface", tmp_path / "out")
    assert certificate["verdict"] == "same outputs"
    assert load(tmp_path / "out").id == given.id
    save(given, tmp_path / "ours.safetensors")
    assert load(tmp_path / "ours.safetensors").id == given.id
    assert not inspect(tmp_path / "ours.safetensors")["problem"]
    render(inspect(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer.0.layer_scale1.lambda1"), "lambda1 is missing"),
        (lambda state: state.update({"layer.7.norm1.weight": torch.ones(32)}), r"layer\.7\.norm1\.weight"),
        (lambda state: state.update({"norm.weight": torch.ones(3)}), "norm.weight"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, change: Any, said: str) -> None:
    written("dinov3_vit", tmp_path)
    state: dict[str, Tensor] = safetensors.torch.load_file(tmp_path / "model.safetensors")
    change(state)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=said):
        load(tmp_path)


def test_networks_of_no_images(tmp_path: Path) -> None:
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="bert"):
        load(tmp_path)
