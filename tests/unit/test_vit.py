"""Vision transformers: what features are, what is refused, and the way to timm and transformers and back."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from origins import State, mae, vit, vit_trunk
from test_inspection import shown
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, random_checkpoint, save
from cgh_bench.converters.base import find as find_converter
from cgh_bench.converters.convert import convert
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data.dense import Located
from cgh_bench.data.image_set import GreyImages
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.features import extract
from cgh_bench.reading import vit_names
from cgh_bench.reading.evidence import settle
from cgh_bench.reading.inspection import inspect
from cgh_bench.reading.loading import load
from cgh_bench.reading.vits import FoundViT
from cgh_bench.reading.weights_file import WeightsFile
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders

ODD = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
PLAIN = ViT("vit_tiny_patch16_64")
SCALED = ViT("vit_tiny_patch14_56", layer_scale=True)
REGISTERS = ViT("vit_tiny_patch16_64", class_position=False, registers=4, head_width=32, layer_scale=True)
MEAN_ONLY = ViT("vit_tiny_patch8_32", class_token=False, class_position=False)


def checkpoint(architecture: ViT) -> Checkpoint:
    """Weights that differ enough for every tensor to matter."""
    torch.manual_seed(0)
    weights = {key: 0.05 * torch.randn_like(tensor) for key, tensor in architecture.build().state_dict().items()}
    weights = {key: tensor + ("norm" in key and tensor.ndim == 1) for key, tensor in weights.items()}
    return Checkpoint("sample", architecture, weights, ODD, Origin("test"))


@pytest.fixture(scope="module")
def plain() -> Checkpoint:
    return checkpoint(PLAIN)


# Features


def tokens_after(network: nn.Module, images: Tensor, blocks: int) -> Tensor:
    """timm's own whole network with its later blocks cut off: what it would put out, after its norm."""
    network.blocks = network.blocks[:blocks]
    found: Tensor = network.forward_features(images)
    return found


def timms(given: Checkpoint, side: int) -> nn.Module:
    """Built by timm, with position embeddings for images of `side` pixels."""
    network = timm.create_model("vit_tiny_patch16_224", img_size=side, num_classes=0)
    grid = (side // 16, side // 16)
    weights = dict(given.weights)
    weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], new_size=grid)
    network.load_state_dict(weights)
    return network.eval()


@pytest.mark.parametrize("side", [64, 96])
@torch.inference_mode()
def test_features_are_timms(plain: Checkpoint, side: int) -> None:
    images = torch.randn(2, 3, side, side)
    last, tenth = (tokens_after(timms(plain, side), images, blocks) for blocks in (12, 10))
    found = plain.backbone().pooled(images, plain.architecture.targets("patch_mean+cls+block10"))
    torch.testing.assert_close(found, torch.cat([tenth[:, 0], last[:, 0], last[:, 1:].mean(dim=1)], dim=1))
    torch.testing.assert_close(plain.backbone()(images), last[:, 0])


@torch.inference_mode()
def test_what_is_no_patch_is_not_in_their_mean() -> None:
    given = checkpoint(REGISTERS)
    images = torch.randn(1, 3, 64, 64)
    network = given.backbone()
    everything = network.outputs(images)["norm"]
    assert everything.shape == (1, 1 + 4 + 16, 192)
    torch.testing.assert_close(network.pooled(images, ("patch_mean",)), everything[:, 5:].mean(dim=1))


@torch.inference_mode()
def test_without_a_class_token_the_patches_are_the_global_feature() -> None:
    given = checkpoint(MEAN_ONLY)
    images = torch.randn(1, 3, 32, 32)
    expected = given.backbone().outputs(images)["norm"].mean(dim=1)
    torch.testing.assert_close(given.backbone()(images), expected)
    torch.testing.assert_close(given.backbone().pooled(images, ("block12",)), expected)
    with pytest.raises(UserError, match="unknown feature of vit_tiny_patch8_32 'cls'"):
        given.architecture.targets("cls")


def test_targets() -> None:
    assert PLAIN.targets("layer4") == ("cls",)
    assert PLAIN.targets("cls+block2+block11") == ("block2", "block11", "cls")
    with pytest.raises(UserError, match="block12"):
        PLAIN.targets("block13")


def test_names() -> None:
    assert [
        (ViT(f"vit_{size}_patch16_224").dim, ViT(f"vit_{size}_patch16_224").depth) for size in ("base", "large")
    ] == [
        (768, 12),
        (1024, 24),
    ]
    for name in ("vit_smal_patch16_224", "vit_small_patch16", "vit_small_patch16_225"):
        with pytest.raises(UserError, match="vit_small_patch16_224"):
            random_checkpoint(name)
    for wrong in ({"head_width": 0}, {"head_width": 50}, {"registers": -1}):
        with pytest.raises(UserError, match="is not a vision transformer"):
            ViT("vit_tiny_patch16_64", **wrong)


def test_the_control_is_its_seeds() -> None:
    first, again, other = (load(f"random:vit_tiny_patch16_32:{seed}") for seed in (1, 1, 2))
    assert first.id == again.id != other.id
    assert first.architecture == ViT("vit_tiny_patch16_32")


def test_evaluated_as_any_backbone(plain: Checkpoint, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 48), dtype=np.uint8)
    images = GreyImages("toy/train", ("a", "b"), np.arange(5) % 2, "f", pixels)
    bank = extract(plain, images, AS_IS, "layer4", tmp_path)
    batch = torch.stack([images.image(number) for number in range(5)]) / 255
    with torch.inference_mode():
        expected = plain.backbone()(ODD(batch))
    np.testing.assert_allclose(bank.features, expected.numpy(), rtol=1e-4, atol=1e-5)
    odd = GreyImages("toy/val", ("a",), np.zeros(1, int), "g", pixels[:1, :30])
    with pytest.raises(UserError, match="30x48 .*multiples of 16"):
        extract(plain, odd, AS_IS, "layer4", tmp_path)


def test_detection_refuses_it(plain: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="animals_det_any"):
        find("animals_det").run(plain, Located(tmp_path, "", ""), Folders(tmp_path / "run", tmp_path), 0)
    assert not (tmp_path / "run").exists()


# Files


def test_ours_is_read_back(tmp_path: Path) -> None:
    given = checkpoint(REGISTERS)
    save(given, tmp_path / "x.safetensors")
    read = load(tmp_path / "x.safetensors")
    assert (read.id, read.architecture, read.preprocessing) == (given.id, REGISTERS, ODD)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("norm.weight"), "norm.weight is missing"),
        (lambda state: state.pop("pos_embed"), "pos_embed is missing"),
        (lambda state: state.pop("blocks.5.mlp.fc1.bias"), "blocks.5.mlp.fc1.bias is missing"),
        (lambda state: state.update(dist_token=torch.zeros(1, 1, 192)), "it also has dist_token"),
        (
            lambda state: state.update({"blocks.0.attn.q_norm.weight": torch.ones(64)}),
            "it also has blocks.0.attn.q_norm",
        ),
        (lambda state: state.update(pos_embed=torch.zeros(1, 16, 192)[:, :15]), "15 position embeddings"),
        (
            lambda state: state.update(pos_embed=torch.zeros(1, 17, 96)),
            "pos_embed is .1, 17, 96., not .1, tok",
        ),
        (lambda state: state.update(pos_embed=torch.zeros(17)), "pos_embed is .17,., not .1, tokens"),
        (lambda state: state.pop("blocks.11.norm1.weight"), "blocks.11.norm1.weight is missing"),
        (lambda state: [state.pop(key) for key in list(state) if "blocks.11." in key], "192 wide and has 11 blocks"),
    ],
)
def test_what_is_no_plain_vision_transformer(change: Callable[[State], object], why: str, tmp_path: Path) -> None:
    state = vit_trunk(vit())
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=f"the network at its top level cannot be used: .*{why}"):
        load(tmp_path / "x.pth")


@pytest.mark.parametrize("family", sorted(vit_names.FAMILIES))
def test_names_are_total_and_injective(family: str) -> None:
    known = vit_names.FAMILIES[family]
    keys = SCALED.build().state_dict() if "ls1.gamma" in known.inner else PLAIN.build().state_dict()
    apart = vit_names.split(keys) if known.splits else keys
    renamed = {known.rename(key): key for key in apart}
    assert len(renamed) == len(apart)
    assert {name: vit_names.canonical_names(family)[name] for name in renamed} == renamed


def test_what_tensors_do_not_tell() -> None:
    def told(name: str, naming: str, source: str, **facts: object) -> tuple[int, float]:
        file = WeightsFile(Path("x"), "test", {}, {key.replace("__", "/"): value for key, value in facts.items()})
        found = settle(file, FoundViT("", naming, {}, ViT(name)), source)[0]
        return found.value("heads"), found.value("norm_eps")

    assert told("vit_small_patch16_224", "vit", "timm") == (6, 1e-6)
    assert told("vit_small_patch16_224", "vit", "moco_v3") == (12, 1e-6)
    assert told("vit_base_patch16_224", "vit", "moco_v3") == (12, 1e-6)
    config = "model = dict(backbone=dict(arch='mocov3-small', type='MoCoV3ViT'))"
    assert told("vit_small_patch16_224", "vit_openmmlab", "mmselfsup", meta__cfg=config) == (12, 1e-6)
    assert told("vit_base_patch16_224", "vit_huggingface", "huggingface") == (12, 1e-12)
    facts = {"config__model_type": "vit"}
    stated = facts | {"config__num_attention_heads": 6, "config__layer_norm_eps": 1e-5}
    assert told("vit_base_patch16_224", "vit_huggingface", "huggingface", **stated) == (6, 1e-5)
    with pytest.raises(UserError, match="activation 'mish'"):
        told("vit_base_patch16_224", "vit_huggingface", "huggingface", **facts, config__hidden_act="mish")


def test_inspect(tmp_path: Path) -> None:
    report = inspect(mae().write(tmp_path))
    assert (report["source"], report["used"], report["problem"]) == ("mae", 150, "")
    assert report["ignored"]["decoder_blocks.0"] == 12
    text = shown(report)
    for part in ("vit_tiny_patch16_64", "5.5 M parameters", "a class token, 0 registers; heads of 64", "--to timm"):
        assert part in text
    untrained = random_checkpoint("vit_tiny_patch16_32")
    save(untrained, tmp_path / "u.safetensors")
    assert "all LayerNorms have their initial values" in shown(inspect(tmp_path / "u.safetensors"))


# Conversion


@pytest.mark.parametrize("target", ["mmdet", "mmseg", "detectron2", "torchvision"])
def test_others_take_none(target: str, plain: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / f"x{find_converter(target).suffixes[0]}"
    with pytest.raises(UserError, match="animals_det_any"):
        convert(plain, target, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", [REGISTERS, MEAN_ONLY, dataclasses.replace(PLAIN, class_position=False)])
def test_transformers_has_not_all(architecture: ViT, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="accepted: ViTs with class token, without registers"):
        convert(checkpoint(architecture), "huggingface", tmp_path / "x")


def certified(given: Checkpoint, target: str, out: Path) -> None:
    certificate = convert(given, target, out)
    assert certificate["verdict"] == "same outputs"
    assert [stage["stage"] for stage in certificate["stages"]] == [
        "input",
        *(f"block{n}" for n in range(1, 13)),
        "norm",
    ]
    assert certificate["coverage"]["unused"] == certificate["coverage"]["missing"] == []
    assert max(stage["relative"] for stage in certificate["stages"]) < 1e-5
    assert load(out).id == given.id


@pytest.mark.usefixtures("libraries_here")
@pytest.mark.parametrize(
    ("target", "name"), [pytest.param("timm", "x.safetensors", marks=pytest.mark.slow), ("huggingface", "x")]
)
def test_certified(target: str, name: str, plain: Checkpoint, tmp_path: Path) -> None:
    certified(plain, target, tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "architecture"),
    [
        ("timm", "x.pth", REGISTERS),
        ("timm", "x.safetensors", MEAN_ONLY),
        ("timm", "x.safetensors", SCALED),
        ("huggingface", "x", SCALED),
        ("huggingface", "x", ViT("vit_tiny_patch16_64", head_width=32, norm_eps=1e-12)),
    ],
)
def test_certified_more(target: str, name: str, architecture: ViT, tmp_path: Path) -> None:
    certified(checkpoint(architecture), target, tmp_path / name)


@pytest.mark.slow
def test_wrong_heads_fail_the_proof(plain: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of heads is in no tensor: only the outputs tell."""
    kind = type(find_converter("timm"))
    honest = kind.fragments

    def fragments(self: object, given: Checkpoint, path: Path) -> dict[str, str]:
        return {k: v.replace("{", '{"num_heads": 6,', 1) for k, v in honest(self, given, path).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "fragments", fragments)
    with pytest.raises(CheckFailed, match="block1 differs"):
        convert(plain, "timm", tmp_path / "x.safetensors")
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["x.safetensors.failed.json"]
