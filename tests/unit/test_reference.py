"""Proof by the origin itself: what its network computed is compared layer by layer, and planted causes are named."""

import argparse
import copy
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from origins import resnet, trunk, vit, vit_trunk
from test_untold import moco_v3_positions
from torch import nn
from torchvision.transforms import v2

import cgh_bench
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.resnet_names import NAMINGS
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Checkpoint, Origin, Preprocessing
from cgh_bench.cli import app
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.networks.base import ACTIVATIONS
from cgh_bench.reading import reference
from cgh_bench.reading.loading import load
from cgh_bench.reading.timms import find_timm
from cgh_bench.reading.weights_file import open_weights

SIZE = 32
REFERENCES = Path(__file__).with_name("references")
IMAGENET = Preprocessing()


def checkpoint(architecture: Any, weights: Any) -> Checkpoint:
    return Checkpoint("sample", architecture, weights, IMAGENET, Origin("unknown"))


def prepared(mean: Any = IMAGENET.mean, std: Any = IMAGENET.std, white: float = 1.0, bgr: bool = False) -> Callable:
    steps = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    normalize = v2.Normalize(mean, std)

    def prepare(image: Any) -> Any:
        pixels = steps(image) * white
        return normalize(pixels.flip(0) if bgr else pixels)

    return prepare


@pytest.fixture(scope="module")
def small() -> tuple[Any, Checkpoint]:
    model = resnet("resnet18")
    model.fc = nn.Identity()
    return model, checkpoint(ResNet("resnet18"), trunk(model))


@pytest.fixture(scope="module")
def cifar() -> tuple[Any, Checkpoint]:
    model = resnet("resnet18", stem="cifar")
    model.fc = nn.Identity()
    return model, checkpoint(ResNet("resnet18", "cifar"), trunk(model))


@pytest.fixture(scope="module")
def deep() -> tuple[Any, Checkpoint]:
    model = resnet("resnet50")
    model.fc = nn.Identity()
    return model, checkpoint(ResNet("resnet50"), trunk(model))


@pytest.fixture(scope="module")
def transformer() -> tuple[Any, Checkpoint]:
    model = vit(num_classes=0, img_size=32)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval(), checkpoint(ViT("vit_tiny_patch16_32"), vit_trunk(model))


def set_conv1(**values: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in values.items():
            setattr(model.conv1, name, (value, value))

    return change


def set_pool(model: Any) -> None:
    model.maxpool = nn.Identity() if isinstance(model.maxpool, nn.MaxPool2d) else nn.MaxPool2d(3, 2, 1)


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for each in changes:
            each(model)

    return change


def dilated(*which: bool, first: bool = False) -> Callable[[Any], None]:
    """What torchvision builds with `replace_stride_with_dilation`."""

    def change(model: Any) -> None:
        import torchvision

        with torch.device("meta"):
            other = torchvision.models.resnet50(replace_stride_with_dilation=list(which))
        for name, module in other.named_modules():
            if isinstance(module, nn.Conv2d):
                mine = model.get_submodule(name)
                mine.stride, mine.padding, mine.dilation = module.stride, module.padding, module.dilation
        if first:
            block = model.layer4[0].conv2
            block.padding = block.dilation = model.layer4[1].conv2.dilation

    return change


def caffe(model: Any) -> None:
    for module in model.modules():
        if hasattr(module, "conv3"):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)


def eps(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.eps = value

    return change


def activation(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for module in list(model.modules()):
            for child, kind in list(module.named_children()):
                if isinstance(kind, nn.ReLU | nn.GELU) or type(kind).__name__ == "GELU":
                    setattr(module, child, ACTIVATIONS[name]())

    return change


def heads(count: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for block in model.blocks:
            block.attn.num_heads, block.attn.head_dim = count, 192 // count
            block.attn.scale = (192 // count) ** -0.5

    return change


def pool_by_mean(model: Any) -> None:
    model.global_pool = "avg"


@dataclass(frozen=True)
class Planted:
    of: str
    change: Callable[[Any], None] | None
    told: str
    prepare: Any = None


PLANTED = {
    "3x3 stem pads by 2": Planted("cifar", set_conv1(padding=2), "stem.padding=2"),
    "3x3 stem pads by 0": Planted("cifar", set_conv1(padding=0), "stem.padding=0"),
    "3x3 stem strides": Planted("cifar", set_conv1(stride=2), "stem.stride=2"),
    "3x3 stem with a pool": Planted("cifar", set_pool, "stem.pool=true"),
    "3x3 stem strides, with a pool": Planted("cifar", both(set_conv1(stride=2), set_pool), "stem.pool=true"),
    "7x7 stem does not stride": Planted("small", set_conv1(stride=1), "stem.stride=1"),
    "7x7 stem pads by 2": Planted("small", set_conv1(padding=2), "stem.padding=2"),
    "7x7 stem without a pool": Planted("small", set_pool, "stem.pool=false"),
    "epsilon of TensorFlow": Planted("small", eps(1e-3), "norm_eps=0.001"),
    "epsilon 1e-4": Planted("small", eps(1e-4), "norm_eps=0.0001"),
    "GELU in a ResNet": Planted("small", activation("gelu"), "activation=gelu"),
    "SiLU in a ResNet": Planted("small", activation("silu"), "activation=silu"),
    "GELU and epsilon": Planted("small", both(activation("gelu"), eps(1e-3)), "activation=gelu"),
    "the last stage dilates": Planted("deep", dilated(False, False, True), "dilation=1,1,1,2"),
    "two stages dilate": Planted("deep", dilated(False, True, True), "dilation=1,1,2,4"),
    "from its first block": Planted("deep", dilated(False, False, True, first=True), "dilate_first=true"),
    "caffe's stride": Planted("deep", caffe, "stride_in_1x1=true"),
    "six heads": Planted("transformer", heads(6), "heads=6"),
    "twelve heads": Planted("transformer", heads(12), "heads=12"),
    "one head": Planted("transformer", heads(1), "heads=1"),
    "epsilon of PyTorch": Planted("transformer", eps(1e-5), "norm_eps=1e-05"),
    "epsilon 1e-3": Planted("transformer", eps(1e-3), "norm_eps=0.001"),
    "quick GELU": Planted("transformer", activation("quick_gelu"), "activation=quick_gelu"),
    "GELU by tanh": Planted("transformer", activation("gelu_tanh"), "activation=gelu_tanh"),
    "ReLU in a ViT": Planted("transformer", activation("relu"), "activation=relu"),
    "the mean of the patches": Planted("transformer", pool_by_mean, "pooling=patch_mean"),
    "heads and epsilon": Planted("transformer", both(heads(12), eps(1e-3)), "heads=12"),
    "heads and pooling": Planted("transformer", both(heads(12), pool_by_mean), "pooling=patch_mean"),
    "mean and std of Inception": Planted("small", None, "preprocessing=inception", prepared([0.5] * 3, [0.5] * 3)),
    "no normalisation": Planted("small", None, "preprocessing=none", prepared([0.0] * 3, [1.0] * 3)),
    "BGR": Planted("small", None, "channel_order=BGR", prepared(bgr=True)),
    "pixels to 255": Planted("small", None, "input_range=255", prepared([120.0] * 3, [1.0] * 3, white=255.0)),
    "another mean": Planted("small", None, "mean=0.4,0.5,0.6", prepared([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])),
}


QUICK = {
    *("3x3 stem pads by 2", "7x7 stem does not stride", "7x7 stem without a pool", "epsilon of TensorFlow"),
    *("GELU in a ResNet", "from its first block", "caffe's stride", "six heads"),
    *("the mean of the patches", "mean and std of Inception", "BGR"),
}
"""One or two of each property; the others are marked `slow`."""


@pytest.mark.parametrize(
    "cause", [cause if cause in QUICK else pytest.param(cause, marks=pytest.mark.slow) for cause in PLANTED]
)
def test_a_planted_cause_is_named(cause: str, request: pytest.FixtureRequest) -> None:
    planted = PLANTED[cause]
    model, read = request.getfixturevalue(planted.of)
    other = copy.deepcopy(model)
    if planted.change:
        planted.change(other)
    found = reference.record(other, planted.prepare or prepared(), (SIZE, SIZE))
    with pytest.raises(CheckFailed) as told:
        reference.certified(read, found)
    assert f"--set {planted.told}" in str(told.value) or f" {planted.told}" in str(told.value)
    assert "first layer that differs" not in str(told.value)


def test_what_agrees_is_certified(small: Any, transformer: Any, tmp_path: Path) -> None:
    for model, read in (small, transformer):
        file = tmp_path / "ref.npz"
        reference.reference_script.record(model, file, prepared(), SIZE)
        proven, proof = reference.certified(read, reference.read(file))
        assert (proven.origin.reach, proven.id) == ("origin", read.id)
        assert (proof["preprocessing"], proof["feature"]) == ("compared", "compared")
        assert proof["stages"][0]["relative"] < 1e-6


def test_names_do_not_matter(small: Any) -> None:
    """lightly and others build a Sequential of a ResNet's children."""
    model, read = small
    found = reference.record(nn.Sequential(*list(model.children())), prepared(), (SIZE, SIZE))
    assert len(reference.certified(read, found)[1]["stages"]) == 40


def test_positions_of_another_size(transformer: Any) -> None:
    _, read = transformer
    other = replace(read, architecture=replace(read.architecture, positions="dino"))
    found = reference.record(other.backbone(), prepared(), (48, 48))
    with pytest.raises(CheckFailed, match="--set positions=dino"):
        reference.certified(read, found)


def test_antialiasing(small: Any) -> None:
    model, read = small
    blurred = timm.create_model("resnetblur18", num_classes=0)
    blurred.load_state_dict(model.state_dict())
    with pytest.raises(CheckFailed, match="--arch resnetblur18"):
        reference.certified(read, reference.record(blurred, prepared(), (SIZE, SIZE)))


def test_other_weights(small: Any) -> None:
    model, _ = small
    teacher = resnet("resnet18", seed=5)
    read = checkpoint(ResNet("resnet18"), trunk(teacher))
    found = reference.record(model, prepared(), (SIZE, SIZE))
    right = checkpoint(ResNet("resnet18"), trunk(model))
    with pytest.raises(CheckFailed, match="other weights"):
        reference.certified(read, found)
    with pytest.raises(CheckFailed, match="--branch student"):
        reference.certified(read, found, lambda: [("--branch student", right)])


def test_an_unknown_cause_is_placed(small: Any) -> None:
    model, read = small
    other = copy.deepcopy(model)
    other.layer2[1].conv1.padding = (0, 0)
    other.layer2[1].conv2.padding = (2, 2)
    with pytest.raises(CheckFailed, match=r"layer2.1.conv1 \(layer2.1.conv1 here\) is the first layer"):
        reference.certified(read, reference.record(other, prepared(), (SIZE, SIZE)))


def filled(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The weights that the files in `references` were recorded with, by their origins' names."""
    state = {}
    for name, shape in shapes.items():
        is_scale = len(shape) == 1 and name.endswith(("weight", "running_var"))
        random = torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        state[name] = random * (1.0 if is_scale else 0.1) + (0.5 if is_scale else -0.05)
    return {name: tensor for name, tensor in state.items() if not name.endswith("tracked")}


Weights = dict[str, torch.Tensor]


@cache
def filled_like(architecture: Any) -> Weights:
    return filled(architecture.shapes)


@dataclass(frozen=True)
class Recorded:
    """What the origin's own code computed, and a file with the same weights in the origin's layout."""

    source: str
    architecture: Any
    prefix: str
    """What the names of the network's tensors begin with."""
    beside: tuple[str, ...] = ()
    """The names of other tensors of the file."""
    within: str = ""
    """The key of the file that holds all of them."""
    more: Mapping[str, Any] = field(default_factory=dict)
    reach: str = "convention"
    """How far the proof reaches without the reference."""
    naming: str = "torchvision"
    """What a ResNet's tensors are called."""

    def document(self, weights: Weights) -> dict[str, Any]:
        if isinstance(self.architecture, ResNet):
            weights = {NAMINGS[self.naming](name): tensor for name, tensor in weights.items()}
        state = prefixed(self.prefix, weights) | dict.fromkeys(self.beside, torch.ones(2))
        return {self.within: state, **self.more} if self.within else state


TINY = ViT("vit_tiny_patch16_32")
NUMBERS = {
    # facebookresearch/moco-v3 (c349e6e) vits.py `vit_small`
    "moco_v3_vit_small": Recorded("moco_v3", ViT("vit_small_patch16_32"), "module.base_encoder.", (), "state_dict"),
    # facebookresearch/dino (7c446df) vision_transformer.py `vit_tiny`, at another size than its own
    "dino_vit_tiny": Recorded("dino", TINY, "backbone.", (), "teacher"),
    # facebookresearch/dinov2 (b8931f7) dinov2/models/vision_transformer.py, at another size than its own
    "dinov2_vit_tiny": Recorded(
        "dino", ViT("vit_tiny_patch14_28", layer_scale=True), "backbone.", ("backbone.mask_token",), "teacher"
    ),
    # bytedance/ibot (da316d8) models/vision_transformer.py, at another size than its own
    "ibot_vit_tiny": Recorded("dino", TINY, "backbone.", ("backbone.masked_embed",), "teacher"),
    # facebookresearch/mae (efb2a80) models_vit.py, with timm 0.4.12
    "mae_vit_tiny": Recorded("mae", TINY, "", ("decoder_blocks.0.norm1.weight",), "model"),
    # facebookresearch/msn (4388dc1) src/deit.py, at another size than its own
    "msn_vit_tiny": Recorded(
        "msn", TINY, "module.", ("module.fc.fc1.weight",), "target_encoder", {"prototypes": torch.ones(2)}
    ),
    # facebookresearch/ijepa (52c1ae9) src/models/vision_transformer.py
    "ijepa_vit_tiny": Recorded(
        "ijepa",
        ViT(TINY.name, class_token=False, class_position=False),
        "module.",
        within="target_encoder",
        more={"predictor": {"module.mask_token": torch.ones(2)}},
    ),
    # facebookresearch/swav (06b1b7c) src/resnet50.py `resnet50`
    "swav_resnet50": Recorded(
        "swav", ResNet("resnet50"), "module.", ("module.projection_head.0.weight", "module.prototypes.weight")
    ),
    # zaczgao/Cross-Context_Learning (340bca9) models/network.py
    "cgh_resnet18": Recorded("cgh", ResNet("resnet18"), "module.encoder_q.", within="net"),
    # facebookresearch/moco (4397a04) moco/builder.py
    "moco_resnet18": Recorded(
        "moco_v2",
        ResNet("resnet18"),
        "module.encoder_q.",
        ("module.encoder_q.fc.0.weight", "module.queue"),
        "state_dict",
    ),
    # mingkai-zheng/ReSSL (4d67daa) network/backbone.py
    "ressl_resnet18": Recorded("ressl", ResNet("resnet18"), "module.encoder_q.net.", within="model"),
    # sthalles/PyTorch-BYOL (f007ed6) models/resnet_base_network.py
    "byol_sthalles_resnet18": Recorded(
        "byol_sthalles", ResNet("resnet18"), "encoder.", within="online_network_state_dict", naming="sequential"
    ),
    # HobbitLong/SupContrast (66a8fe5) networks/resnet_big.py
    "supcontrast_resnet18": Recorded(
        "supcontrast",
        ResNet("resnet18", "cifar"),
        "encoder.",
        within="model",
        more={"opt": argparse.Namespace(dataset="cifar10")},
        naming="shortcut",
    ),
    # byol-pytorch 0.9.1
    "byol_resnet18": Recorded("byol", ResNet("resnet18"), "online_encoder.net."),
    # facebookresearch/simsiam (a7bc177) simsiam/builder.py
    "simsiam_resnet18": Recorded(
        "simsiam",
        ResNet("resnet18"),
        "module.encoder.",
        ("module.encoder.fc.0.weight", "module.predictor.0.weight"),
        "state_dict",
    ),
    # facebookresearch/barlowtwins (8e8d284) main.py
    "barlow_twins_resnet50": Recorded(
        "barlow_twins",
        ResNet("resnet50"),
        "module.backbone.",
        ("module.projector.0.weight", "module.bn.running_mean"),
        "model",
    ),
    # facebookresearch/vicreg (4e12602) resnet.py `resnet50`, augmentations.py
    "vicreg_resnet50": Recorded(
        "vicreg", ResNet("resnet50"), "module.backbone.", ("module.projector.0.bias",), "model"
    ),
    # zdaxie/PixPro (e390d6b) contrast/resnet.py `resnet18`
    "pixpro_resnet18": Recorded(
        "pixpro", ResNet("resnet18"), "module.encoder.", ("module.projector.linear1.weight",), "model"
    ),
    # sthalles/SimCLR (1848fc9) models/resnet_simclr.py
    "simclr_resnet18": Recorded("simclr", ResNet("resnet18"), "backbone.", ("backbone.fc.2.weight",), "state_dict"),
    # Spijkervet/SimCLR (2738efa) simclr/modules/resnet_hacks.py
    "simclr_cifar_resnet50": Recorded("simclr", ResNet("resnet50", "cifar"), "encoder.", ("projector.2.weight",)),
    # WXinlong/DenseCL (b64bbb6) openselfsup/models/backbones/resnet.py
    "densecl_resnet50": Recorded(
        "densecl",
        ResNet("resnet50"),
        "backbone.",
        ("encoder_q.0.fc.weight", "queue2"),
        "state_dict",
        reach="assumed",  # its configuration is not in this file
    ),
}
"""Recorded by the origins' own code."""


def prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> Weights:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_origins_own_code(name: str, tmp_path: Path) -> None:
    recorded = NUMBERS[name]
    weights = dict(filled_like(recorded.architecture))
    if recorded.source == "moco_v3":
        weights["pos_embed"] = moco_v3_positions(2, 384)
    torch.save(recorded.document(weights), tmp_path / "x.pth")
    read = load(tmp_path / "x.pth")
    assert (read.origin.source, read.origin.reach) == (recorded.source, recorded.reach)
    proven, _ = reference.certified(read, reference.read(REFERENCES / f"{name}.npz"))
    assert proven.origin.reach == "origin"


def test_numbers_of_open_clip(tmp_path: Path) -> None:
    """An image tower of open_clip 3.3.0, narrow, whose file timm's own rules convert."""
    layers = {"ln_pre": (64,), "ln_post": (64,)}
    for block in ("transformer.resblocks.0", "transformer.resblocks.1"):
        layers |= {f"{block}.ln_1": (64,), f"{block}.ln_2": (64,), f"{block}.attn.out_proj": (64, 64)}
        layers |= {f"{block}.mlp.c_fc": (256, 64), f"{block}.mlp.c_proj": (64, 256), f"{block}.attn.in_proj": (192, 64)}
    shapes = {"class_embedding": (64,), "positional_embedding": (5, 64), "conv1.weight": (64, 3, 16, 16)}
    for name, shape in layers.items():
        join = "_" if name.endswith("in_proj") else "."
        shapes |= {f"{name}{join}weight": shape, f"{name}{join}bias": shape[:1]}
    weights = filled({name: torch.Size(shape) for name, shape in shapes.items()})
    torch.save(prefixed("visual.", weights) | {"visual.proj": torch.ones(64, 48)}, tmp_path / "x.pt")
    narrow = (("depth", 2), ("embed_dim", 64), ("img_size", 32), ("num_heads", 1))
    file = open_weights(tmp_path / "x.pt")
    (found,) = find_timm(file, Timm("vit_base_patch16_clip_quickgelu_224", narrow))
    read = checkpoint(found.architecture, found.weights(file))
    proven, proof = reference.certified(read, reference.read(REFERENCES / "open_clip_vit.npz"))
    assert (proven.origin.reach, proof["feature"]) == ("origin", "compared")


def test_the_certificate_of_a_conversion_begins_at_the_origin(small: Any, tmp_path: Path) -> None:
    model, _ = small
    torch.save(model.state_dict(), tmp_path / "x.pth")
    reference.reference_script.record(model, tmp_path / "ref.npz", prepared(), SIZE)
    words = ["convert", tmp_path / "x.pth", "--to", "torchvision", "-o", tmp_path / "out.pth"]
    done = CliRunner().invoke(app, [*map(str, words), "--no-verify", "--reference", str(tmp_path / "ref.npz")])
    assert done.exit_code == 0, done.output
    certificate = json.loads((tmp_path / "out.pth.certificate.json").read_text())
    assert certificate["reach"] == "origin"
    assert len(certificate["reference"]["stages"]) == 40
    assert max(stage["relative"] for stage in certificate["reference"]["stages"]) < 1e-5


def test_the_command(tmp_path: Path) -> None:
    """A file whose own model must say what no tensor tells: refused, then named, then certified."""
    model = resnet(stem="cifar")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    model.conv1.padding = (2, 2)
    script = CliRunner().invoke(app, ["reference", "script"])
    own: dict[str, Any] = {"__name__": "reference"}
    exec(compile(script.output, "reference.py", "exec"), own)
    own["record"](model, tmp_path / "ref.npz", prepared(), 32)
    inspect = ["inspect", str(tmp_path / "x.pth"), "--json", "--reference", str(tmp_path / "ref.npz")]
    told = CliRunner().invoke(app, inspect)
    assert isinstance(told.exception, CheckFailed)
    assert "add --set stem.padding=2" in json.loads(told.output)["problem"]
    report = json.loads(CliRunner().invoke(app, [*inspect, "--set", "stem.padding=2"]).output)
    assert (report["reach"], report["reference"]["feature"]) == ("origin", "compared")


def test_from_python(small: Any) -> None:
    model, read = small
    assert cgh_bench.certify(model, read, prepared(), SIZE).origin.reach == "origin"


def test_what_is_not_a_reference(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    for path in (tmp_path / "x.npz", tmp_path / "absent.npz"):
        with pytest.raises(UserError, match="reference script"):
            reference.read(path)
