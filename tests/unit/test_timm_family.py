"""Networks of timm: the contract for every family, sizes, features, and what is refused."""

import json
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from cgh_bench import backbones
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing, save
from cgh_bench.converters.convert import convert
from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import hypercolumn
from cgh_bench.networks.timm import MapBackbone
from cgh_bench.reading.inspection import inspect
from cgh_bench.reading.loading import load
from cgh_bench.reading.timms import INDEX, classifier, find_timm, fingerprint
from cgh_bench.reading.weights_file import WeightsFile

QUICK = (
    "beit_base_patch16_224",
    "convnext_atto",
    "crossvit_tiny_240",
    "eva02_tiny_patch14_224",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "levit_128s",
    "naflexvit_base_patch16_gap",
    "regnetx_002",
    "resnet10t",
    "swin_tiny_patch4_window7_224",
    "vgg11_bn",
    "vit_relpos_small_patch16_224",
)
"""Small members of every form: tokens with and without class token, maps channels first and last, one size or any, two
branches."""
MORE = (
    "aimv2_large_patch14_224",
    "botnet26t_256",
    "cait_xxs24_224",
    "coat_lite_tiny",
    "coatnet_nano_rw_224",
    "convit_tiny",
    "convmixer_768_32",
    "convnextv2_atto",
    "cspresnet50",
    "davit_tiny",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "dla34",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "efficientnet_lite0",
    "efficientvit_b0",
    "efficientvit_m0",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_100",
    "hgnetv2_b0",
    "inception_next_atto",
    "legacy_seresnet18",
    "mambaout_femto",
    "maxvit_rmlp_pico_rw_256",
    "mixer_s32_224",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nest_tiny",
    "nfnet_l0",
    "pit_ti_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "repvit_m0_9",
    "res2net50_14w_8s",
    "resnest14d",
    "resnet18d",
    "resnetv2_18",
    "rexnet_100",
    "seresnet18",
    "skresnet18",
    "swinv2_cr_tiny_ns_224",
    "swinv2_tiny_window8_256",
    "tiny_vit_5m_224",
    "tnt_s_patch16_224",
    "twins_svt_small",
    "visformer_tiny",
    "vit_small_patch16_dinov3",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "vovnet39a",
    "xcit_nano_12_p16_224",
)
"""Small members of the other families."""
COMPUTED = (
    "convnext_atto",
    "deit_tiny_distilled_patch16_224",
    "efficientnet_lite0",
    "swin_tiny_patch4_window7_224",
    pytest.param("vit_relpos_small_patch16_224", marks=pytest.mark.slow),
    pytest.param("eva02_tiny_patch14_224", marks=pytest.mark.slow),
    pytest.param("mobilenetv3_small_100", marks=pytest.mark.slow),
    pytest.param("regnetx_002", marks=pytest.mark.slow),
    pytest.param("resnet10t", marks=pytest.mark.slow),
    pytest.param("xcit_nano_12_p16_224", marks=pytest.mark.slow),
)


NARROW = {
    "deit_tiny_distilled_patch16_224": (("depth", 2), ("img_size", 64)),
    "swin_tiny_patch4_window7_224": (("depths", (1, 1, 1, 1)), ("embed_dim", 48), ("img_size", 112)),
}


def named(name: str) -> Timm:
    """As timm's, also where an earlier family has that name."""
    found = Timm.named(name)
    assert found is not None
    return found


def on_meta(*size: int) -> Tensor:
    return torch.empty(2, 3, *size, device="meta")


def accepted(architecture: Timm) -> list[tuple[int, int]]:
    """The sizes, of some, that the network takes; its own first."""
    sizes = [architecture.image_size]
    for size in ((96, 128), (256, 224)):
        try:
            architecture.require_size(*size)
        except UserError:
            continue
        sizes.append(size)
    return sizes


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
@torch.inference_mode()
def test_contract(name: str) -> None:
    architecture = named(name)
    for size in accepted(architecture):
        assert_contract(architecture, *size)
    network = architecture.skeleton
    everything = tuple(part for part in architecture.targets("+".join((*network.stages, "head"))))
    assert network.pooled(on_meta(*architecture.image_size), everything).shape == (2, network.width(everything))
    assert backbones.from_fields(backbones.to_fields(architecture)) == architecture


def assert_contract(architecture: Timm, height: int, width: int) -> None:
    """Channels, strides and width are what they say."""
    network = architecture.skeleton
    pooled, maps = network.global_and_pyramid(on_meta(height, width))
    assert pooled.shape == (2, network.dim)
    assert list(maps) == list(network.stages)
    for stage, found in maps.items():
        said = network.stages[stage]
        assert found.shape[:2] == (2, said.channels)
        for side, pixels in zip(found.shape[2:], (height, width), strict=True):
            assert abs(side - pixels / said.stride) <= max(2, 0.1 * pixels / said.stride), stage  # some do not pad


@pytest.mark.parametrize("name", COMPUTED)
@torch.inference_mode()
def test_features_are_timms(name: str) -> None:
    """The head's feature is the bare network's; a stage's is the mean of its map."""
    arguments = NARROW.get(name, ())
    architecture = Timm(name, arguments)
    backbone = architecture.with_weights(random_weights(architecture))
    bare = timm.create_model(name, num_classes=0, **dict(arguments)).eval()
    bare.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, *architecture.image_size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone(images), bare(images))
    pooled, maps = backbone.global_and_pyramid(images)
    torch.testing.assert_close(pooled, bare(images))
    if isinstance(backbone, MapBackbone):
        last = list(maps)[-2:]
        found = backbone.pooled(images, architecture.targets("+".join(last)))
        torch.testing.assert_close(found, hypercolumn(maps, tuple(last)).mean(dim=(2, 3)))
    else:
        final = bare.forward_features(images)
        torch.testing.assert_close(backbone.pooled(images, ("patch_mean",)), final[:, backbone.prefix :].mean(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*QUICK, *MORE) if not re.search("large|base", name)])
@torch.inference_mode()
def test_every_stage_of_what_timm_saved(name: str, tmp_path: Path) -> None:
    """Folders of Hugging Face's form, held against the network that wrote them."""
    model = timm.create_model(name, num_classes=3).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(0.1 * noise.abs() if tensor.ndim < 2 else 0.01 * noise)
    save_for_hf(model, tmp_path, safe_serialization=not name.startswith("coat_lite"))  # which has tensors twice
    read = load(tmp_path)
    backbone = read.backbone(copy=False)
    images = torch.randn(1, 3, *read.architecture.image_size, generator=torch.Generator().manual_seed(0))
    options = {} if isinstance(backbone, MapBackbone) else {"norm": True}
    final, maps = model.forward_intermediates(images, **options)
    ours = list(backbone.pyramid(images).values())
    theirs = [each[0] if isinstance(each, tuple) else each for each in maps]
    assert len(ours) == len(theirs) or name.startswith("crossvit")
    for mine, map_ in zip(ours, theirs, strict=False):
        assert float((mine - map_).abs().max()) <= 1e-4 * float(map_.abs().max())
    pooled = model.forward_head(final, pre_logits=True)
    if read.architecture.targets("layer4") == ("head",):
        assert float((backbone(images) - pooled).abs().max()) <= 1e-4 * float(pooled.abs().max())


@torch.inference_mode()
def test_dinov3_is_its_class_token() -> None:
    """timm pools the mean of patches; DINOv3's authors take the class token."""
    backbone = replace(named("vit_small_patch16_dinov3"), arguments=(("depth", 2),)).build().eval()
    images = torch.randn(1, 3, 64, 64)
    tokens = backbone.tokens(images)
    assert tokens.cls is not None
    assert tokens.registers.shape[1] == 4
    torch.testing.assert_close(backbone(images), tokens.cls)
    torch.testing.assert_close(backbone.pooled(images, ("head",)), tokens.patches.mean(dim=1))


def test_sizes() -> None:
    named("convnext_atto").require_size(50, 70)
    named("swin_tiny_patch4_window7_224").require_size(48, 48)
    with pytest.raises(UserError, match="288x288.*224x224"):
        named("beit_base_patch16_224").require_size(288, 288)
    Timm("beit_base_patch16_224", (("img_size", 96),)).require_size(96, 96)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="did you mean convnext_tiny"):
        backbones.named("convnext_tinny")
    with pytest.raises(UserError, match=r"layers\.9.*layers"):
        named("swin_tiny_patch4_window7_224").targets("layers.9")
    with pytest.raises(UserError, match="no_such"):
        Timm("convnext_atto", (("no_such", 1),)).build()


# Reading and writing


@pytest.fixture(scope="module")
def convnext() -> nn.Module:
    return trained(timm.create_model("convnext_atto", num_classes=3))


def trained(model: nn.Module) -> nn.Module:
    """With weights that differ everywhere, so that every tensor matters."""
    model.load_state_dict(different(model.state_dict()))
    return model.eval()


def different(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: tensor + 0.05 * torch.randn(tensor.shape, generator=generator).abs()
        if tensor.is_floating_point()
        else tensor
        for key, tensor in weights.items()
    }


def random_weights(architecture: Timm) -> dict[str, Tensor]:
    return different(architecture.build().state_dict())


def assert_read(found: Checkpoint, model: nn.Module) -> None:
    """All but the classifier, whose tensors are named."""
    truth = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("head.fc.")}
    assert found.weights.keys() == truth.keys()
    assert all(torch.equal(found.weights[key], truth[key]) for key in truth)
    assert len(found.origin.ignored) >= len(model.state_dict()) - len(truth)


def test_folder(convnext: nn.Module, tmp_path: Path) -> None:
    save_for_hf(convnext, tmp_path / "hub", safe_serialization=True)
    found = load(tmp_path / "hub")
    assert_read(found, convnext)
    assert found.architecture == Timm("convnext_atto")
    assert (found.origin.source, found.origin.reach) == ("timm", "convention")


def test_training_checkpoint(convnext: nn.Module, tmp_path: Path) -> None:
    ema = {f"module.{key}": tensor for key, tensor in convnext.state_dict().items()}
    document = {
        "arch": "convnext_atto",
        "state_dict": different(convnext.state_dict()),
        "state_dict_ema": ema,
        "version": 2,
        "args": Namespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]),
    }
    torch.save(document, tmp_path / "last.pth.tar")
    found = load(tmp_path / "last.pth.tar")
    assert_read(found, convnext)
    assert (found.origin.source, found.origin.branch) == ("timm", "ema")
    assert found.preprocessing.mean == (0.1, 0.2, 0.3)
    assert not torch.equal(
        load(tmp_path / "last.pth.tar", branch="model").weights["stem.0.weight"], found.weights["stem.0.weight"]
    )


def test_bare_file_is_told_by_its_shapes(convnext: nn.Module, tmp_path: Path) -> None:
    """If one network only has them; else the choices are named."""
    state = convnext.state_dict()
    torch.save({"teacher": {f"backbone.{key}": tensor for key, tensor in state.items()}}, tmp_path / "t")
    assert_read(load(tmp_path / "t"), convnext)
    assert_read(load(tmp_path / "t", arch="convnext_atto.some_tag"), convnext)
    with pytest.raises(UserError, match="convnext_femto"):
        load(tmp_path / "t", arch="convnext_femto")
    torch.save(timm.create_model("efficientnet_lite0").state_dict(), tmp_path / "several")
    with pytest.raises(UserError, match="efficientnet_lite0, tf_efficientnet_lite0.*--arch"):
        load(tmp_path / "several")
    torch.save({"blocks.0.strange.weight": torch.ones(3)}, tmp_path / "none")
    with pytest.raises(UserError, match="--arch"):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_original_names(name: str, tmp_path: Path) -> None:
    """ConvNeXt's own file, which timm knows to convert; that of V2's pretraining has no norm behind the pooling."""
    model = trained(timm.create_model(name, num_classes=3))
    is_fcmae = name.startswith("convnextv2")
    if is_fcmae:
        with torch.no_grad():
            model.head.norm.weight.fill_(1), model.head.norm.bias.fill_(0)
    own = {}
    for key, tensor in model.state_dict().items():
        if key.startswith("head.") and is_fcmae:
            continue
        new = re.sub(r"stages\.(\d)\.blocks\.(\d+)\.", r"stages.\1.\2.", key)
        new = re.sub(r"stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", new)
        new = new.replace("stem.", "downsample_layers.0.").replace("conv_dw", "dwconv")
        new = new.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
        new = new.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        own[new.replace("head.fc.", "head.").replace("head.norm.", "norm.")] = (
            tensor.reshape(1, 1, 1, -1)
            if "grn" in new
            else tensor.flatten(1)
            if "pwconv" in new and tensor.ndim == 4
            else tensor
        )
    torch.save({"model": own}, tmp_path / "own.pth")
    found = load(tmp_path / "own.pth", arch=name)
    kept = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("head.fc.")}
    assert found.weights.keys() == kept.keys() and all(torch.equal(found.weights[key], kept[key]) for key in kept)
    made_up = [
        each["name"] for each in inspect(tmp_path / "own.pth", arch=name)["properties"] if each["kind"] == "assumed"
    ]
    assert ("head.norm.weight" in made_up) == is_fcmae
    own.pop("stages.1.0.dwconv.bias")
    torch.save({"model": own}, tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"stages\.1\.blocks\.0\.conv_dw\.bias is missing"):
        load(tmp_path / "own.pth", arch=name)


ROPE = {"rope.freqs_cos": torch.ones(4, 8), "blocks.0.attn.rope.freqs_sin": torch.ones(4, 8)}
HEAD = {"head.weight": torch.ones(3, 16), "head.bias": torch.ones(3)}
MASKED = {"mask_token": torch.ones(1, 1, 16), "lm_head.weight": torch.ones(16, 16), "lm_head.bias": torch.ones(16)}
EVA = (
    *(("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"), ("mlp.norm", "mlp.ffn_ln")),
    *(("attn.norm", "attn.inner_attn_ln"), (r"([qv])_proj\.bias", r"\1_bias")),
)
AIM = (
    *((r"norm(\d)", r"norm_\1"), ("mlp.fc1_g", "mlp.fc1"), ("mlp.fc1_x", "mlp.fc3"), ("^blocks", "trunk.blocks")),
    *(
        ("^p(?=atch_embed|os_embed)", "preprocessor.p"),
        ("patch_embed", "patchifier"),
        ("^norm", "trunk.post_trunk_norm"),
    ),
)


@pytest.mark.parametrize(
    ("name", "place", "renamed", "more"),
    [
        ("eva02_tiny_patch14_224", "model/", (), ROPE | HEAD),
        ("eva02_base_patch14_224", "model/", EVA, ROPE | HEAD),
        ("eva02_base_patch14_224", "module/", (*EVA, ("fc_norm", "norm")), ROPE | MASKED),
        ("eva02_base_patch14_224", "visual.", EVA, HEAD),
        ("aimv2_large_patch14_224", "", AIM, {}),
        ("beit_base_patch16_224", "model/", (), {**HEAD, "blocks.0.attn.relative_position_index": torch.ones(5, 5)}),
    ],
)
def test_original_files_of_transformers(
    name: str, place: str, renamed: Sequence[tuple[str, str]], more: Mapping[str, Tensor]
) -> None:
    """EVA-02 fine-tuned, of masked images and of CLIP (baaivision/EVA), AIMv2 (apple/ml-aim), BEiT and data2vec
    fine-tuned (microsoft/unilm, facebookresearch/data2vec_vision)."""
    architecture = smaller(name)
    weights = random_weights(architecture)
    own = {reduce(lambda k, rule: re.sub(*rule, k), renamed, key): tensor for key, tensor in weights.items()}
    assert_found(name, {f"{place}{key}": tensor for key, tensor in (own | more).items()}, architecture, weights)


def smaller(name: str) -> Timm:
    patch = int(re.search(r"patch(\d+)", name).group(1))  # type: ignore[union-attr]
    return Timm(name, (("img_size", 2 * patch), ("embed_dim", 16), ("depth", 2), ("num_heads", 2)))


def assert_found(name: str, state: dict[str, Tensor], asked: Timm, weights: Mapping[str, Tensor]) -> Timm:
    file = WeightsFile(Path(name), "", state, {})
    (found,) = find_timm(file, asked)
    assert not found.problem and found.architecture is not None
    read = found.weights(file)
    assert read.keys() == weights.keys() and all(torch.equal(read[key], weights[key]) for key in weights)
    assert isinstance(found.architecture, Timm)
    return found.architecture


@torch.inference_mode()
def test_data2vecs_pretraining() -> None:
    """Blocks that share their positions compute what blocks with equal ones do."""
    asked = replace(smaller("beit_base_patch16_224"), pooling="cls")
    own = random_weights(replace(asked, arguments=(*asked.arguments, ("global_pool", "token"))))
    shared = own["blocks.0.attn.relative_position_bias_table"]
    own["blocks.1.attn.relative_position_bias_table"] = shared
    plain = replace(asked, arguments=(*asked.arguments, ("global_pool", "token"))).with_weights(own)
    pretrained = {key: tensor for key, tensor in own.items() if "relative" not in key}
    pretrained["rel_pos_bias.relative_position_bias_table"] = shared
    found = assert_found("d2v", {f"model/{key}": t for key, t in (pretrained | MASKED).items()}, asked, pretrained)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(found.with_weights(pretrained)(images), plain(images))


def test_efficientnets_of_lukemelas(tmp_path: Path) -> None:
    """Blocks numbered through, and TensorFlow's padding; their own code and weights gave the same outputs by hand."""
    model = trained(timm.create_model("tf_efficientnet_lite0", num_classes=3))
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    blocks = [key for key, module in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", key)]
    own = {}
    for key, tensor in model.state_dict().items():
        block = next((each for each in blocks if key.startswith(f"{each}.")), None)
        module, leaf = key.rsplit(".", 1)
        if block is None:
            own[f"{outer[module]}.{leaf}"] = tensor
            continue
        names = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        inside = [name for name, _ in model.get_submodule(block).named_children() if name.startswith(("conv", "bn"))]
        inside = [name for name in inside if any(True for _ in model.get_submodule(f"{block}.{name}").parameters())]
        theirs = dict(zip(inside, names[6 - len(inside) :], strict=True))
        own[f"_blocks.{blocks.index(block)}.{theirs[module.removeprefix(block + '.')]}.{leaf}"] = tensor
    torch.save(own, tmp_path / "lite0.pth")
    found = load(tmp_path / "lite0.pth")
    assert found.architecture == Timm("tf_efficientnet_lite0")
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in found.weights.items())


def test_dinov3_file(tmp_path: Path) -> None:
    model = trained(timm.create_model("vit_small_patch16_dinov3"))
    own = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    for key, tensor in model.state_dict().items():
        name = (
            key.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        )
        own[name] = tensor
    own |= {f"blocks.{number}.attn.qkv.bias": torch.zeros(3 * 384) for number in range(12)}
    torch.save(own, tmp_path / "dinov3.pth")
    found = load(tmp_path / "dinov3.pth", arch="vit_small_patch16_dinov3")
    assert_read(found, model)
    assert found.architecture.targets("layer4") == ("cls",)
    own["blocks.0.attn.qkv.bias"] += 1
    torch.save(own, tmp_path / "dinov3.pth")
    with pytest.raises(UserError, match=r"blocks\.0\.attn\.qkv\.bias"):
        load(tmp_path / "dinov3.pth", arch="vit_small_patch16_dinov3")


@pytest.mark.parametrize(
    ("change", "named_in_error"),
    [
        (lambda state: state.pop("stages.0.blocks.0.gamma"), r"stages\.0\.blocks\.0\.gamma is missing"),
        (lambda state: state.pop("stem.0.bias"), r"stem\.0\.bias is missing"),
        (lambda state: state.update({"stages.0.blocks.0.gammma": state.pop("stages.0.blocks.0.gamma")}), "gammma"),
        (lambda state: state.update({"stages.3.blocks.9.gamma": torch.ones(3)}), r"stages\.3\.blocks\.9\.gamma"),
        (lambda state: state.update({"extra.weight": torch.ones(3)}), r"extra\.weight"),
        (lambda state: state.update({"stem.0.bias": torch.ones(3)}), r"stem\.0\.bias is \(3,\)"),
        (lambda state: state.update({"stem.0.bias": torch.full((40,), torch.nan)}), "NaN"),
        (lambda state: state.update({"stem.0.bias": torch.ones(40, dtype=torch.int8)}), "int8"),
    ],
)
def test_tensors_that_do_not_fit(
    convnext: nn.Module, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], named_in_error: str
) -> None:
    state = dict(convnext.state_dict())
    change(state)
    torch.save({"arch": "convnext_atto", "state_dict": state, "version": 2}, tmp_path / "last.pth.tar")
    with pytest.raises(UserError, match=named_in_error):
        load(tmp_path / "last.pth.tar")


def test_layer_scales_that_did_not_arrive(convnext: nn.Module, tmp_path: Path) -> None:
    state = dict(convnext.state_dict())
    save_for_hf(convnext, tmp_path / "hub", safe_serialization=True)
    assert all(check["verdict"] == "ok" for check in inspect(tmp_path / "hub")["checks"])
    state["stages.1.blocks.0.gamma"] = torch.full((80,), 1e-6)
    torch.save({"arch": "convnext_atto", "state_dict": state, "version": 2}, tmp_path / "last.pth.tar")
    remarks = [check["remark"] for check in inspect(tmp_path / "last.pth.tar")["checks"] if check["verdict"] == "bad"]
    assert remarks == ["1 of 12 layer scales are constant, first stages.1.blocks.0.gamma: they were not loaded"]


@pytest.mark.parametrize("name", ["convnext_atto", pytest.param("eva02_tiny_patch14_224", marks=pytest.mark.slow)])
def test_conversion_to_timm_and_back(name: str, tmp_path: Path, libraries_here: None) -> None:
    architecture = Timm(name, (("img_size", 112),)) if name.startswith("eva") else Timm(name)
    given = Checkpoint("sample", architecture, random_weights(architecture), Preprocessing(), Origin("test"))
    certificate = convert(given, "timm", tmp_path / "out.safetensors")
    assert certificate["verdict"] == "same outputs"
    assert [stage["stage"] for stage in certificate["stages"]][-1] == "head"
    assert certificate["network"].startswith(f"timm.models.{name.split('_', maxsplit=1)[0].rstrip('0123456789')}")
    assert certificate["checkpoint"]["architecture"]["family"] == "timm"
    assert load(tmp_path / "out.safetensors").id == given.id
    save(given, tmp_path / "ours.safetensors")
    assert load(tmp_path / "ours.safetensors").id == given.id


@pytest.mark.slow
def test_every_network() -> None:
    """All that timm lists build without memory, keep the contract, and read what timm saves; an hour."""
    broken = {}
    for name in Timm.names():
        try:
            architecture = named(name)
            if not name.startswith("gemma4"):  # which needs values: see the test below
                with torch.inference_mode():
                    assert_contract(architecture, *architecture.image_size)
            shapes = {**architecture.shapes, **classifier(architecture)}
            state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
            (network,) = find_timm(WeightsFile(Path(name), "", state, {}), architecture)
            assert not network.problem, network.problem
            (one_of,) = [names for names in INDEXED if name in names]
            assert fingerprint(architecture.shapes) == INDEXED[one_of]
        except (AssertionError, UserError, RuntimeError, ValueError) as error:
            broken[name] = repr(error)[:200]
    assert not broken


INDEXED = {tuple(names): key for key, names in json.loads(INDEX.read_text(encoding="utf-8"))["networks"].items()}
"""What `tools/timm_index.py` wrote of all of them."""


@pytest.mark.parametrize("name", ["convnext_atto", "hrnet_w18_small", "swin_tiny_patch4_window7_224"])
def test_index(name: str) -> None:
    (key,) = [key for names, key in INDEXED.items() if name in names]
    assert fingerprint(named(name).shapes) == key


@pytest.mark.parametrize("name", ["inception_v3", "mobilenetv5_base", "tresnet_l", "vit_so400m_patch14_siglip_384"])
@torch.inference_mode()
def test_unusual_networks(name: str) -> None:
    """Maps that are not padded, stages with attention (`blocks.2.4.attn`), a stem without a name, broken patches."""
    architecture = named(name)
    assert_contract(architecture, *architecture.image_size)
    shapes = {**architecture.shapes, **classifier(architecture)}
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    (found,) = find_timm(WeightsFile(Path(name), "", state, {}), architecture)
    assert not found.problem


@torch.inference_mode()
def test_a_network_that_reads_its_grid_from_values() -> None:
    small = {"img_size": 64, "embed_dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "intermediate_size": 32}
    backbone = Timm("gemma4_vit_167m", tuple(small.items())).build().eval()
    pooled, maps = backbone.global_and_pyramid(torch.rand(2, 3, 96, 64))
    assert pooled.shape == (2, backbone.dim)
    assert {stage: found.shape for stage, found in maps.items()} == dict.fromkeys(backbone.stages, (2, 16, 6, 4))
    with pytest.raises(UserError, match="60x64"):
        backbone.pyramid(torch.rand(2, 3, 60, 64))
