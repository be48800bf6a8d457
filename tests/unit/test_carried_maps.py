"""Carrying a backbone, without a framework: which are taken, which maps and layers they have, the simple pyramid."""

import json

import pytest
import torch
from click.testing import CliRunner
from timm.models import group_parameters

from cgh_bench import tasks
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import random_checkpoint, save
from cgh_bench.cli.checkpoints import inspect
from cgh_bench.core.errors import UserError
from cgh_bench.reading.loading import load
from cgh_bench.tasks.transfer import CARRIED
from cgh_bench.transfer_configs.contract import carried, simple_pyramid

VIT = Timm("vit_tiny_patch16_224", (("depth", 3), ("embed_dim", 16), ("img_size", 32), ("num_heads", 2)))


def test_the_kinds_are_those_of_the_tasks():
    assert tuple(carried.KINDS) == CARRIED


@pytest.mark.parametrize(
    ("architecture", "stages", "stride", "shrink"),
    [
        ("resnet18", ("layer1", "layer2", "layer3", "layer4"), (4, 8, 16, 32), 1),
        ("convnext_atto", ("stages.0", "stages.1", "stages.2", "stages.3"), (4, 8, 16, 32), 1),
        ("efficientnet_b0", ("blocks.1", "blocks.2", "blocks.4", "blocks.6"), (4, 8, 16, 32), 1),
        ("vit_tiny_patch16_224", ("block4", "block6", "block8", "block12"), (16,) * 4, 1),
        ("vit_tiny_patch8_224", ("block4", "block6", "block8", "block12"), (8,) * 4, 1),
        ("vit_tiny_patch14_224", ("block4", "block6", "block8", "block12"), (16,) * 4, 14 / 16),
    ],
)
def test_which_maps_a_framework_gets(architecture, stages, stride, shrink):
    found = carried.require(carried.architecture_of(architecture), "any", "a protocol")
    assert (found.stages, found.strides, found.shrink) == (stages, stride, shrink)


@pytest.mark.parametrize(
    ("architecture", "kind", "said"),
    [
        ("vit_tiny_patch32_224", "any", "stride 32"),
        ("channels", "any", "stride 1"),
        ("levit_128s", "any", "stride 16, 32, 64"),
        ("resnet18", "single-scale", "accepted: patches of 6 to 22 pixels"),
        ("vit_tiny_patch16_224", "multi-scale", "accepted: maps at strides 4, 8, 16 and 32"),
        ("beit_base_patch16_224", "any", "accepts only 224x224"),
        ("legacy_xception", "any", "not padded"),
    ],
)
def test_a_backbone_that_a_protocol_cannot_take_is_refused_in_a_line(architecture, kind, said):
    with pytest.raises(UserError, match=said) as told:
        carried.require(carried.architecture_of(architecture), kind, "a protocol")
    assert architecture in str(told.value) and "\n" not in str(told.value)


def test_a_task_for_one_architecture_names_those_for_others():
    vit = random_checkpoint("vit_tiny_patch16_224")
    for name, others in {
        "animals_det": "animals_det_any or animals_det_quick",
        "ade20k_upernet": "ade20k_linear or ade20k_upernet_vit",
    }.items():
        with pytest.raises(UserError, match=rf"vit_tiny_patch16_224; use {others} \("):
            tasks.find(name).check_backbone(vit)
    tasks.find("animals_det_any").check_backbone(vit)


def test_maps_of_a_patch_of_14_are_at_stride_16_and_a_frozen_network_is_left_alone(tmp_path):
    architecture = Timm("vit_tiny_patch16_224", (*VIT.arguments, ("patch_size", 14)))
    torch.manual_seed(0)
    network = carried.Carried("vit_tiny_patch14_28", frozen=True)
    assert not network.train().network.training
    maps = network(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 192, 4, 6)] * 4
    assert not any(each.requires_grad for each in maps)
    assert carried.layout(architecture).shrink == 14 / 16


def test_the_architecture_of_a_file_is_that_of_its_checkpoint(tmp_path):
    checkpoint = random_checkpoint("resnet18")
    save(checkpoint, tmp_path / "weights.safetensors")
    assert carried.architecture_of(str(tmp_path / "weights.safetensors")) == checkpoint.architecture


@pytest.mark.parametrize(
    ("architecture", "source", "place"),
    [
        ("resnet18", "mmdet", "state_dict/backbone.network"),
        ("vit_tiny_patch16_32", "mmseg", "state_dict/backbone.network"),
        ("convnext_atto", "detectron2", "model/backbone.bottom_up.network"),
    ],
)
def test_fine_tuned_weights_are_read_back(architecture, source, place, tmp_path):
    checkpoint = random_checkpoint(architecture)
    save(checkpoint, tmp_path / "weights.safetensors")
    (folder, module), head = place.split("/"), torch.zeros(1)
    tensors = {f"{module}.{name}": tensor for name, tensor in checkpoint.weights.items()}
    said = carried.fine_tuned(tmp_path / "weights.safetensors", source, "animals_det_any")
    torch.save({folder: {**tensors, "roi_heads.box.weight": head}, **said}, tmp_path / "model.pth")
    found = load(tmp_path / "model.pth")
    assert (found.id, found.origin.source) == (checkpoint.id, source)
    shown = CliRunner().invoke(inspect, [str(tmp_path / "model.pth"), "--json"])
    assert json.loads(shown.stdout)["source"] == source
    lost = next(iter(tensors))
    torch.save({folder: {name: tensors[name] for name in tensors if name != lost}, **said}, tmp_path / "model.pth")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "model.pth")
    assert "model.pth" in str(refused.value) and "\n" not in str(refused.value)


def test_layers_are_timms_and_their_rates_detectron2s():
    network = carried.Carried("vit_tiny_patch16_32").network
    theirs = group_parameters(network.network, network.network.group_matcher(), reverse=True)
    assert network.layers() == {f"network.{name}": layer for name, layer in theirs.items()}
    factors = carried.rate_factors(carried.Carried("vit_tiny_patch16_32"), 0.7)
    assert factors["network.network.pos_embed"] == pytest.approx(0.7**13)  # get_vit_lr_decay_rate
    assert factors["network.network.blocks.11.mlp.fc1.weight"] == pytest.approx(0.7)
    convnext = Timm("convnext_atto", (("depths", (1, 1, 2, 1)), ("dims", (8, 8, 16, 16)))).skeleton
    numbers = convnext.layers()
    assert (numbers["network.stem.0.weight"], max(numbers.values())) == (0, 5)
    assert numbers["network.stages.2.downsample.1.weight"] == numbers["network.stages.2.blocks.0.mlp.fc1.weight"] == 3
    assert set(convnext.layers(by_stage=True).values()) == {0, 1, 2, 3, 4}


def test_branches_are_left_out_more_often_towards_the_end_and_only_in_training():
    network = VIT.build()
    images = torch.rand(2, 3, 32, 32)
    before = network.eval().pyramid(images)["block3"]
    carried.set_drop_path(network, 0.5)
    assert torch.equal(network.pyramid(images)["block3"], before)
    torch.manual_seed(0)
    assert not torch.equal(network.train().pyramid(images)["block3"], before)
    rates = [module.rate for module in network.modules() if hasattr(module, "rate")]
    assert rates == [0, 0, 0.25, 0.25, 0.5, 0.5]
    with pytest.raises(UserError, match="drop path"):
        carried.set_drop_path(carried.Carried("resnet18").network, 0.1)


@pytest.mark.parametrize("stride", [8, 16])
def test_the_simple_pyramid(stride):
    pyramid = simple_pyramid.SimpleFeaturePyramid(32, stride, 8, num_outs=5)
    levels = pyramid([torch.rand(1, 32, 128 // stride, 64 // stride)])
    assert [tuple(level.shape) for level in levels] == [(1, 8, 128 // s, 64 // s) for s in (4, 8, 16, 32, 64)]


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_32", "convnext_atto"])
def test_mixed_precision_computes_nearly_the_same_and_trains_in_full(architecture):
    """Autocast to bfloat16 around the backbone and what reads its maps, as frameworks do on a GPU."""
    torch.manual_seed(0)
    network, images = carried.Carried(architecture), torch.rand(2, 3, 64, 64)
    pyramid = simple_pyramid.SimpleFeaturePyramid(network.layout.channels[-1], 16, 8, num_outs=5)
    exact = network.eval()(images)[-1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(images)[-1]
        maps = network.train()(images)
        levels = pyramid(maps[-1:]) if network.layout.is_single_scale else maps
    assert ((rough.float() - exact).abs().max() / exact.abs().max()) < 0.05
    sum(level.float().square().mean() for level in levels).backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert len(gradients) > 10 and all(each.dtype == torch.float32 and each.isfinite().all() for each in gradients)
