"""What no tensor tells is read where it is said: features of a file are those of the library that wrote it."""

import argparse
import json
import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from origins import (
    IMAGENET_CFG,
    LIGHTLY,
    MM_CFG,
    Holder,
    _train_norms,
    by_lightly,
    filled,
    lightning,
    mlp,
    resnet,
    trunk,
    vit,
    vit_trunk,
)
from timm.models import save_for_hf
from torch import Tensor, nn

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Checkpoint, Preprocessing
from cgh_bench.core.errors import UserError
from cgh_bench.reading.loading import load

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def assert_computes(read: Checkpoint, theirs: Tensor, images: Tensor = IMAGES) -> None:
    ours = read.backbone(copy=False)(images)
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


def written(folder: Path, document: Any, name: str = "x.pth") -> Path:
    torch.save(document, folder / name)
    return folder / name


def kinds(read: Checkpoint) -> dict[str, str]:
    return {each.name: each.kind for each in read.origin.properties}


@torch.inference_mode()
def pooled(model: Any, images: Tensor = IMAGES) -> Tensor:
    model.eval()
    found: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
    return found


def solo_learn(backbone: nn.Module, **more: Any) -> dict[str, Any]:
    model = Holder(backbone=backbone, classifier=nn.Linear(8, 2), projector=mlp(8, 8, 8))
    return lightning(model.state_dict()) | more


@torch.inference_mode()
@pytest.mark.parametrize("where", ["args.json", "hyper_parameters"])
def test_solo_learn_pads_its_cifar_stem_by_two(where: str, tmp_path: Path) -> None:
    """And its dataset, which the file or one beside it names, says mean and std.

    Source: vturrisi/solo-learn (9187ea3) solo/methods/base.py.
    """
    model = resnet()
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    model.maxpool, model.fc = nn.Identity(), nn.Identity()
    if where == "args.json":
        (tmp_path / where).write_text(json.dumps({"data": {"dataset": "cifar10"}}))
    said = {where: {"dataset": "cifar10", "max_epochs": 1000}} if where == "hyper_parameters" else {}
    read = load(written(tmp_path, solo_learn(model, **said), "x.ckpt"))
    assert_computes(read, model.eval()(IMAGES))
    assert read.preprocessing == Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    assert (kinds(read)["stem.padding"], kinds(read)["mean"]) == ("implied", "stated")


def moco_v3_positions(side: int, width: int) -> Tensor:
    """(1, 1 + N, D); source: facebookresearch/moco-v3 (c349e6e) vits.py, `build_2d_sincos_position_embedding`."""
    rows = torch.arange(side).repeat_interleave(side).float()
    columns = torch.arange(side).repeat(side).float()
    omega = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    waves = [f(at[:, None] * omega) for at in (rows, columns) for f in (torch.sin, torch.cos)]
    return torch.cat([torch.zeros(1, width), torch.cat(waves, dim=1)])[None]


@pytest.mark.parametrize("converted", [True, False])
def test_moco_v3s_small_network_has_twelve_heads(converted: bool, tmp_path: Path) -> None:
    """After `convert_to_deit.py`, and in solo-learn, only the fixed positions tell."""
    model = vit(embed_dim=384, num_heads=12, num_classes=0, img_size=32)
    with torch.no_grad():
        model.pos_embed.copy_(moco_v3_positions(2, 384))
    document = {"model": vit_trunk(model)} if converted else solo_learn(model)
    read = load(written(tmp_path, document))
    images = IMAGES[..., :32, :32]
    assert_computes(read, pooled(model, images), images)
    assert kinds(read)["heads"] == "implied"


@pytest.fixture(scope="module")
def blurred() -> Any:
    model = timm.create_model("resnetblur18", num_classes=0)
    _train_norms(model, 1)
    return model


@pytest.mark.parametrize("whole", [True, False])
def test_blurred_downsampling(whole: bool, blurred: Any, tmp_path: Path) -> None:
    document = {"arch": "resnetblur18", "state_dict": blurred.state_dict(), "version": 2}
    read = load(written(tmp_path, blurred if whole else document))
    assert read.architecture == Timm("resnetblur18")
    assert_computes(read, pooled(blurred))


def test_blurred_downsampling_by_name(blurred: Any, tmp_path: Path) -> None:
    path = written(tmp_path, blurred.state_dict())
    assert load(path).origin.reach == "assumed"  # no tensor tells
    assert_computes(load(path, arch="resnetblur18"), pooled(blurred))


@pytest.mark.parametrize("whole", [True, False])
def test_pooling_by_the_mean(whole: bool, tmp_path: Path) -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, global_pool="avg", fc_norm=False, num_classes=0, norm_layer=None
    )
    args = argparse.Namespace(model="vit_tiny_patch16_224", gp="avg", img_size=64, model_kwargs={"fc_norm": False})
    document = {"arch": args.model, "state_dict": model.state_dict(), "args": args, "version": 2}
    read = load(written(tmp_path, model if whole else document))
    assert_computes(read, pooled(model))


def test_the_training_says_mean_and_std(tmp_path: Path) -> None:
    args = argparse.Namespace(model="resnet18", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    state = timm.create_model("resnet18").state_dict()
    read = load(written(tmp_path, {"arch": "resnet18", "state_dict": state, "args": args, "version": 2}))
    assert read.preprocessing == Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert {kinds(read)[name] for name in ("mean", "stem.padding", "norm_eps")} == {"stated"}


@torch.inference_mode()
def test_the_configuration_beside_a_file_of_hugging_face(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    shape = {"image_size": 64, "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768}
    config = ViTConfig(**shape, hidden_act="gelu_new", layer_norm_eps=1e-3)
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    images = {"do_normalize": False, "rescale_factor": 2 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        read = load(path)
        assert_computes(read, model(IMAGES).last_hidden_state[:, 0])
        assert read.preprocessing == Preprocessing(input_range=2.0, mean=(0.0,) * 3, std=(1.0,) * 3)


@torch.inference_mode()
def test_activation_of_a_resnet_of_hugging_face(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(depths=[2] * 4, hidden_sizes=[64, 128, 256, 512], layer_type="basic", hidden_act="silu")
    model = ResNetModel(config).eval()
    _train_norms(model, 0)
    model.save_pretrained(tmp_path)
    assert_computes(load(tmp_path), model(IMAGES).pooler_output.flatten(1))


def test_dilation_of_torchvisions_segmentors(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=2).eval()
    _train_norms(model, 0)
    read = load(written(tmp_path, model.state_dict()))
    with torch.inference_mode():
        assert_computes(read, model.backbone(IMAGES)["out"].mean(dim=(2, 3)))


@torch.inference_mode()
def test_stems_that_could_be_any(tmp_path: Path) -> None:
    model = resnet(stem="cifar")
    model.conv1.stride, model.maxpool, model.fc = (2, 2), nn.MaxPool2d(3, 2, 1), nn.Identity()
    path = written(tmp_path, model.state_dict())
    with pytest.raises(UserError, match=r"--set stem.stride=1 .*stem.padding=2 \(solo-learn"):
        load(path)
    settings = ["stem.stride=2", "stem.pool=true", "stem.padding=1"]
    assert_computes(load(path, settings=settings), model.eval()(IMAGES))
    assert_computes(load(written(tmp_path, model, "whole.pth")), model(IMAGES))  # the module says it itself


@torch.inference_mode()
def test_a_whole_model_says_its_epsilon_and_activation(tmp_path: Path) -> None:
    model = resnet()
    model.fc, model.maxpool = nn.Identity(), nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    read = load(written(tmp_path, model))
    assert_computes(read, model.eval()(IMAGES))
    assert kinds(read)["norm_eps"] == kinds(read)["stem.pool"] == "stated"
    assert load(written(tmp_path, model.state_dict(), "bare.pth")).origin.reach == "assumed"


def test_positions_of_dino_at_another_size(tmp_path: Path) -> None:
    model = vit(num_classes=0)
    read = load(written(tmp_path, {"teacher": Holder(backbone=model).state_dict(), "student": {}}))
    assert read.architecture == ViT("vit_tiny_patch16_64", positions="dino")
    with torch.inference_mode():
        at_own, other = (read.backbone(copy=False)(torch.ones(1, 3, side, side)) for side in (64, 96))
        timms = load(written(tmp_path, vit_trunk(model), "bare.pth")).backbone(copy=False)
        assert torch.equal(at_own, timms(torch.ones(1, 3, 64, 64)))
        assert not torch.allclose(other, timms(torch.ones(1, 3, 96, 96)), rtol=1e-3)


def test_networks_of_lightly(tmp_path: Path) -> None:
    """Against what the library itself computes; its ResNet for CIFAR loses a ReLU in a Sequential, and is refused."""
    if not LIGHTLY.is_dir():
        pytest.skip("lightly is absent; make providers")
    for kind in ("moco", "vit"):
        given = by_lightly()[kind]
        assert_computes(load(written(tmp_path, given["state"])), given["output"], given["images"])
    with pytest.raises(UserError, match="without the ReLU.*cgh_bench.wrap"):
        load(written(tmp_path, by_lightly()["generator"]["state"]))


def test_the_configuration_beside_a_file_of_vissl(tmp_path: Path) -> None:
    from origins import vissl

    path = vissl().write(tmp_path)
    steps = [{"name": "RandomResizedCrop"}, {"name": "Normalize", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}]
    config = {"DATA": {"TRAIN": {"TRANSFORMS": steps}}, "MODEL": {"INPUT_TYPE": "bgr"}}
    (tmp_path / "train_config.yaml").write_text(json.dumps(config))
    read = load(path)
    assert read.preprocessing == Preprocessing("BGR", 1.0, (0.3, 0.2, 0.1), (0.6, 0.5, 0.4))
    config["MODEL"]["TRUNK"] = {"RESNETS": {"LAYER4_STRIDE": 1}}
    (tmp_path / "train_config.yaml").write_text(json.dumps(config))
    with pytest.raises(UserError, match="LAYER4_STRIDE"):
        load(path)


def test_siglip_pools_by_attention(tmp_path: Path) -> None:
    """timm's SigLIP, narrowed: its head is read from the file's own words, never taken for a class token."""
    made = {"img_size": 64, "embed_dim": 192, "num_heads": 3, "depth": 2, "num_classes": 0}
    model = timm.create_model("vit_base_patch16_siglip_224", **made)
    save_for_hf(model, tmp_path / "hub", model_args=made, safe_serialization=True)
    read = load(tmp_path / "hub")
    assert read.architecture.targets("layer4") == ("head",)
    assert_computes(read, pooled(model))
    with pytest.raises(UserError):
        load(written(tmp_path, model.state_dict(), "bare.pth"))


def openmmlab(head: str, backbone: nn.Module, cfg: str) -> dict[str, Any]:
    state = Holder(backbone=backbone, **{head: Holder(fc=nn.Linear(2, 2), conv_seg=nn.Conv2d(2, 2, 1))}).state_dict()
    return {"meta": {"mmengine_version": "0.10.7", "cfg": cfg}, "state_dict": state}


def test_dilation_of_mmsegmentation(tmp_path: Path) -> None:
    from mmseg.models.backbones import ResNet as Theirs

    options = "depth=50, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=True"
    for contracts in ("contract_dilation=True", "contract_dilation=False"):
        chosen = options.replace("contract_dilation=True", contracts)
        model = filled(partial(Theirs, **eval(f"dict({chosen})")))
        model.eval()
        _train_norms(model, 0)
        head = "decode_head=dict(dilations=(1, 12, 24, 36))"
        cfg = MM_CFG.format(**IMAGENET_CFG).replace("depth=18", chosen).replace("backbone=", f"{head}, backbone=")
        read = load(written(tmp_path, openmmlab("decode_head", model, cfg)))
        with torch.inference_mode():
            assert_computes(read, model(IMAGES)[-1].mean(dim=(2, 3)))


def test_heads_of_mmpretrain(tmp_path: Path) -> None:
    from origins import mmpretrain_vit

    sample = mmpretrain_vit()
    arch = "arch=dict(embed_dims=192, num_layers=12, num_heads=6, feedforward_channels=768)"
    sample.document["meta"]["cfg"] = MM_CFG.format(**IMAGENET_CFG).replace("depth=18", arch)
    assert load(sample.write(tmp_path)).architecture == ViT("vit_tiny_patch16_64", head_width=32)


def test_cifar_images_of_mmpretrain_are_rgb(tmp_path: Path) -> None:
    model = resnet()
    cfg = "dataset_type = 'CIFAR10'\n" + MM_CFG.format(**{**IMAGENET_CFG, "to_rgb": "False", "flip": "to_rgb"})
    read = load(written(tmp_path, openmmlab("head", model, cfg)))
    assert read.preprocessing.channel_order == "RGB"


def test_a_detector_that_does_not_say_its_images(tmp_path: Path) -> None:
    from origins import detectron2_c4

    path = detectron2_c4().write(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "INPUT: {FORMAT: RGB}\nMODEL: {PIXEL_MEAN: [123.675, 116.28, 103.53], PIXEL_STD: [58.395, 57.12, 57.375],"
        " RESNETS: {STRIDE_IN_1X1: false}}\n"
    )
    read = load(path)
    assert (read.architecture, read.preprocessing) == (ResNet("resnet50"), Preprocessing())
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(UserError, match="--set preprocessing=caffe"):
        load(path)
    chosen = load(path, settings=["preprocessing=imagenet", "stride_in_1x1=false"])
    assert (chosen.id, chosen.preprocessing) == (read.id, Preprocessing())


def test_images_that_are_not_square(tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=(64, 144), num_classes=0)
    with pytest.raises(UserError, match="64x144"):
        load(written(tmp_path, {"model": model.state_dict(), "args": argparse.Namespace(img_size=(64, 144))}))
    images = torch.rand(1, 3, 64, 144)
    assert_computes(load(written(tmp_path, model)), pooled(model, images), images)


def options(seed: int) -> tuple[str, dict[str, Any]]:
    """A constructor of timm's with random options, at a size that is cheap."""
    chosen = random.Random(seed)
    if chosen.random() < 0.5:
        kind = chosen.choice(["resnet18", "resnetblur18", "resnet18d"])
        act = chosen.choice(["relu", "silu", "gelu"])
        return kind, {"act_layer": act, "output_stride": chosen.choice([32, 32, 16])} if kind != "resnet18d" else {}
    heads, act = chosen.choice([1, 3, 6, 12]), chosen.choice(["gelu", "relu", "quick_gelu", "gelu_tanh"])
    pool = chosen.choice([{}, {"global_pool": "avg"}, {"global_pool": "avg", "fc_norm": False}, {"global_pool": "map"}])
    norm = partial(nn.LayerNorm, eps=chosen.choice([1e-6, 1e-5, 1e-3]))
    tokens = {"reg_tokens": chosen.choice([0, 4]), "init_values": chosen.choice([None, 0.1]), "depth": 12}
    return "vit_tiny_patch16_224", {
        "img_size": 64,
        "num_heads": heads,
        "act_layer": act,
        "norm_layer": norm,
        **pool,
        **tokens,
    }


def fuzz(seeds: Iterable[int], folder: Path) -> None:
    """A file is refused, computes what its own network does, or says that something is assumed."""
    for seed in seeds:
        torch.manual_seed(seed)
        name, given = options(seed)
        model = timm.create_model(name, num_classes=0, **given)
        _train_norms(model, seed)
        for document in (model, model.state_dict()):
            try:
                read = load(written(folder, document))
            except UserError:
                continue
            if read.origin.reach != "assumed" or isinstance(document, nn.Module):
                assert_computes(read, pooled(model))


def test_no_option_of_a_constructor_is_lost(tmp_path: Path) -> None:
    fuzz(range(4), tmp_path)


@pytest.mark.slow
def test_no_option_of_a_constructor_is_lost_more(tmp_path: Path) -> None:
    fuzz(range(4, 104), tmp_path)


def test_settings_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, trunk(resnet()))
    for setting, why in (
        ("stem.paddin=2", "did you mean stem.padding"),
        ("stem.padding=x", "stem.padding=x"),
        ("activation=mish", "unknown activation"),
        ("preprocessing=imagnet", "did you mean imagenet"),
        ("heads=3", "unknown property of resnet18"),
    ):
        with pytest.raises(UserError, match=why):
            load(path, settings=[setting])
