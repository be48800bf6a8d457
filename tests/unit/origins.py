"""One checkpoint per origin in that origin's own layout, built from the real library where it is installed.

`ORIGINS` names a way to make each `Sample`; test_readers.py and docs/checkpoints.md go through all of them.
"""

import argparse
import collections
import copy
import itertools
import multiprocessing
import pickle
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.resnet_names import NAMINGS
from cgh_bench.backbones.vit import ViT
from cgh_bench.checkpoint import Preprocessing
from cgh_bench.data.preprocessing import MSRA, X101
from cgh_bench.networks.base import without_memory

State = dict[str, Tensor]
PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Sample:
    document: Any = field(repr=False)
    source: str
    branches: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    """Branch to the true trunk under torchvision's names; the first is the default."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    stride_in_1x1: bool = False
    arch: str = "resnet18"
    stem: str = "imagenet"
    suffix: str = ".pth"
    folder: Mapping[str, str] | None = None
    """Text files beside `model.safetensors`, where the origin is a folder."""
    vit: Architecture | None = None
    """Where it is not a usual ResNet."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Text files in the folder of the checkpoint."""

    @property
    def architecture(self) -> Architecture:
        return self.vit or ResNet(self.arch, self.stem, self.stride_in_1x1)  # type: ignore[arg-type]

    def write(self, folder: Path) -> Path:
        if self.folder is not None:
            import safetensors.torch

            safetensors.torch.save_file(self.document, folder / "model.safetensors", {"format": "pt"})
            for name, text in self.folder.items():
                (folder / name).write_text(text)
            return folder
        path = folder / f"sample{self.suffix}"
        for name, text in self.beside.items():
            (folder / name).write_text(text)
        if self.suffix == ".pkl":
            path.write_bytes(pickle.dumps(self.document, protocol=2))
        else:
            torch.save(self.document, path)
        return path


def resnet(arch: str = "resnet18", seed: int = 0, stem: str = "imagenet") -> Any:
    """torchvision's own network with statistics that look trained."""
    torch.manual_seed(seed)
    return copy.deepcopy(_resnet(arch, seed, stem))


@lru_cache(maxsize=6)
def _resnet(arch: str, seed: int, stem: str) -> Any:
    def build() -> Any:
        model = torchvision.models.get_model(arch, weights=None)
        if stem == "cifar":
            model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            model.maxpool = nn.Identity()
        return model

    model = filled(build)
    _train_norms(model, seed)
    return model


def filled(build: Callable[[], Any]) -> Any:
    """The network that `build` returns with other values: its own initialisation takes seconds."""
    with without_memory():
        model = build()
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())):
        nn.init.uniform_(tensor, -0.05, 0.05)
    return model


def _train_norms(model: nn.Module, seed: int) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(100 + seed)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)


def trunk(model: nn.Module) -> State:
    return {key: tensor.clone() for key, tensor in model.state_dict().items() if not key.startswith("fc.")}


class Holder(nn.Module):
    """A module with these children and buffers, so that names come about as in the real code."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)


def ddp(model: nn.Module) -> State:
    """The state dict as DistributedDataParallel saves it."""
    return Holder(module=model).state_dict()


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(a, b, bias=bias)] + ([nn.ReLU()] if index < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def optimizer(model: nn.Module) -> dict[str, Any]:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict()


def with_fc(model: Any, fc: nn.Module) -> Any:
    model.fc = fc
    return model


def pair(head: Callable[[], nn.Module] = nn.Identity) -> tuple[Any, Any, State, State]:
    student, teacher = resnet(seed=1), resnet(seed=2)
    truths = trunk(student), trunk(teacher)
    return with_fc(student, head()), with_fc(teacher, head()), *truths


def torchvision_plain() -> Sample:
    model = resnet("resnet50")
    return Sample(model.state_dict(), "torchvision", {"model": trunk(model)}, arch="resnet50")


def torchvision_reference() -> Sample:
    model, average = resnet(seed=1), resnet(seed=2)
    averaged = torch.optim.swa_utils.AveragedModel(average)
    document = {
        "model": model.state_dict(),
        "optimizer": optimizer(model),
        "epoch": 3,
        "args": argparse.Namespace(model="resnet18", data_path=Path("/data")),
        "model_ema": averaged.state_dict(),
    }
    return Sample(document, "torchvision", {"model": trunk(model), "ema": trunk(average)})


def imagenet_example() -> Sample:
    model = resnet("resnet34")
    document = {"epoch": 90, "arch": "resnet34", "state_dict": ddp(model), "best_acc1": torch.tensor(76.1)}
    return Sample(document, "torchvision", {"model": trunk(model)}, arch="resnet34")


def torchvision_segmentation() -> Sample:
    build = torchvision.models.segmentation.fcn_resnet50
    model = filled(lambda: build(weights=None, weights_backbone=None, num_classes=2))
    _train_norms(model, 6)
    dilated = ResNet("resnet50", dilation=(1, 1, 2, 4))
    truth = {key: tensor.clone() for key, tensor in model.backbone.state_dict().items()}
    return Sample(model.state_dict(), "torchvision_segmentation", {"model": truth}, vit=dilated)


def whole_model() -> Sample:
    model = resnet()
    return Sample(model, "torchvision", {"model": trunk(model)})


def cgh() -> Sample:
    student, teacher, q, k = pair(lambda: mlp(512, 32, 8))
    net = Holder(encoder_q=student, encoder_k=teacher, queue=torch.randn(8, 16), queue_ptr=torch.zeros(1))
    document = {"net": ddp(net), "optimizer0": optimizer(net), "epoch": 1, "arch": "resnet18", "best_acc1": 0.0}
    return Sample(document, "cgh", {"student": q, "teacher": k})


def moco(version: int) -> Sample:
    student, teacher, q, k = pair(lambda: nn.Linear(512, 8) if version == 1 else mlp(512, 512, 8))
    model = Holder(encoder_q=student, encoder_k=teacher, queue=torch.randn(8, 16), queue_ptr=torch.zeros(1))
    document = {"epoch": 200, "arch": "resnet18", "state_dict": ddp(model), "optimizer": optimizer(model)}
    return Sample(document, f"moco_v{version}", {"student": q, "teacher": k}, suffix=".pth.tar")


def moco_v3() -> Sample:
    base, momentum, b, m = pair(lambda: mlp(512, 16, 8, bias=False))
    model = Holder(base_encoder=base, momentum_encoder=momentum, predictor=mlp(8, 16, 8))
    document = {"epoch": 300, "arch": "resnet18", "state_dict": ddp(model), "scaler": {"scale": 65536.0}}
    return Sample(document, "moco_v3", {"base": b, "momentum": m}, suffix=".pth.tar")


def simclr_sthalles() -> Sample:
    model = resnet()
    truth = trunk(model)
    model.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 8))
    state = Holder(backbone=model).state_dict()
    document = {"epoch": 100, "arch": "resnet18", "state_dict": state, "optimizer": optimizer(model)}
    return Sample(document, "simclr", {"model": truth}, PLAIN, suffix=".pth.tar")


def simclr_spijkervet() -> Sample:
    encoder = resnet()
    truth = trunk(encoder)
    model = Holder(encoder=with_fc(encoder, nn.Identity()), projector=mlp(512, 512, 8, bias=False))
    return Sample(model.state_dict(), "simclr", {"model": truth}, PLAIN, suffix=".tar")


def simsiam() -> Sample:
    encoder = resnet()
    truth = trunk(encoder)
    encoder.fc = nn.Sequential(nn.Linear(512, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
    model = Holder(encoder=encoder, predictor=nn.Sequential(nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4)))
    return Sample({"epoch": 100, "arch": "resnet18", "state_dict": ddp(model)}, "simsiam", {"model": truth})


def byol_lucidrains() -> Sample:
    online, target, o, t = pair(lambda: nn.Linear(512, 10))
    model = Holder(
        net=online,
        online_encoder=Holder(net=online, projector=mlp(512, 16, 8)),
        target_encoder=Holder(net=target, projector=mlp(512, 16, 8)),
        online_predictor=mlp(8, 16, 8),
    )
    return Sample(model.state_dict(), "byol", {"online": o, "target": t})


def byol_sthalles() -> Sample:
    online, target, o, t = pair()
    nets = [
        Holder(encoder=nn.Sequential(*list(model.children())[:-1]), projetion=Holder(net=mlp(512, 16, 8)))
        for model in (online, target)
    ]
    document = {
        "online_network_state_dict": nets[0].state_dict(),
        "encoder_state_dict": nets[0].encoder.state_dict(),
        "target_network_state_dict": nets[1].state_dict(),
        "optimizer_state_dict": optimizer(nets[0]),
    }
    return Sample(document, "byol_sthalles", {"online": o, "target": t}, PLAIN)


def swav() -> Sample:
    model = resnet()
    truth = trunk(model)
    del model.fc
    model.projection_head, model.prototypes = mlp(512, 16, 8), nn.Linear(8, 30, bias=False)
    return Sample(ddp(model), "swav", {"model": truth}, Preprocessing(std=(0.228, 0.224, 0.225)), suffix=".pth.tar")


def barlow_twins() -> Sample:
    backbone = resnet()
    truth = trunk(backbone)
    model = Holder(
        backbone=with_fc(backbone, nn.Identity()),
        projector=mlp(512, 16, 8, bias=False),
        bn=nn.BatchNorm1d(8, affine=False),
    )
    return Sample({"epoch": 9, "model": ddp(model), "optimizer": optimizer(model)}, "barlow_twins", {"model": truth})


def vicreg() -> Sample:
    backbone = resnet()
    truth = trunk(backbone)
    del backbone.fc
    model = Holder(backbone=backbone, projector=mlp(512, 16, 8))
    return Sample({"epoch": 9, "model": ddp(model), "optimizer": optimizer(model)}, "vicreg", {"model": truth})


def dino() -> Sample:
    student, teacher, s, t = pair()
    wrapped = [
        Holder(backbone=model, head=Holder(mlp=mlp(512, 16, 8), last_layer=nn.utils.weight_norm(nn.Linear(8, 20))))
        for model in (student, teacher)
    ]
    document = {
        "student": ddp(wrapped[0]),
        "teacher": wrapped[1].state_dict(),
        "optimizer": optimizer(wrapped[0]),
        "epoch": 100,
        "args": argparse.Namespace(arch="resnet18", momentum_teacher=0.996, data_path=Path("/data")),
        "dino_loss": {"center": torch.zeros(1, 20)},
    }
    return Sample(document, "dino", {"teacher": t, "student": s})


def ressl() -> Sample:
    student, teacher, q, k = pair()
    model = Holder(
        encoder_q=Holder(net=student, head=mlp(512, 32, 8)),
        encoder_k=Holder(net=teacher, head=mlp(512, 32, 8)),
        queue=torch.randn(8, 16),
        queue_ptr=torch.zeros(1, dtype=torch.long),
    )
    document = {"model": ddp(model), "optimizer": optimizer(model), "epoch": 200}
    return Sample(document, "ressl", {"student": q, "teacher": k})


def pixpro() -> Sample:
    online, momentum, o, m = pair()
    head = Holder(linear1=nn.Conv2d(512, 16, 1), bn1=nn.BatchNorm2d(16), linear2=nn.Conv2d(16, 8, 1))
    model = Holder(
        encoder=online, projector=head, encoder_k=momentum, projector_k=copy.deepcopy(head), value_transform=head
    )
    document = {"opt": argparse.Namespace(arch="resnet18"), "model": ddp(model), "epoch": 100}
    return Sample(document, "pixpro", {"online": o, "momentum": m})


def openselfsup(dense: bool) -> Sample:
    student, teacher, q, k = pair()
    del student.fc, teacher.fc
    sequential = nn.Sequential(student, Holder(mlp=mlp(512, 16, 8)))
    queues = {"queue": torch.randn(8, 16)} | ({"queue2": torch.randn(8, 16)} if dense else {})
    model = Holder(
        encoder_q=sequential,
        backbone=student,
        encoder_k=nn.Sequential(teacher, Holder(mlp=mlp(512, 16, 8))),
        **queues,
    )
    meta = {"openselfsup_version": "0.1.0", "config": "model = dict(type='DENSECL')", "epoch": 200}
    document = {"meta": meta, "state_dict": model.state_dict(), "optimizer": optimizer(model)}
    return Sample(document, "densecl" if dense else "openselfsup", {"student": q, "teacher": k})


MM_CFG = """model = dict(
    data_preprocessor=dict({extra}mean=[{mean}], std=[{std}], {flip}={to_rgb}),
    backbone=dict(type='ResNet', depth=18, style='{style}'))
"""
IMAGENET_CFG = {
    "extra": "", "mean": "123.675, 116.28, 103.53", "std": "58.395, 57.12, 57.375",
    "flip": "bgr_to_rgb", "to_rgb": "True", "style": "pytorch",
}  # fmt: skip


def _openmmlab(source: str, model: nn.Module, **cfg: str) -> dict[str, Any]:
    from mmengine.logging import HistoryBuffer

    return {
        "meta": {"mmengine_version": "0.10.7", "cfg": MM_CFG.format(**IMAGENET_CFG | cfg), "epoch": 12},
        "state_dict": model.state_dict(),
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}, "source": source},
    }


def mmselfsup() -> Sample:
    student, teacher, q, k = pair()
    del student.fc, teacher.fc
    average = Holder(module=nn.Sequential(teacher, Holder(mlp=mlp(512, 16, 8))), steps=torch.tensor(7))
    model = Holder(backbone=student, neck=Holder(mlp=mlp(512, 16, 8)), queue=torch.randn(8, 16), encoder_k=average)
    return Sample(_openmmlab("selfsup", model), "mmselfsup", {"student": q, "teacher": k})


def mmpretrain() -> Sample:
    backbone = resnet()
    truth = trunk(backbone)
    del backbone.fc
    model = Holder(backbone=backbone, head=Holder(fc=nn.Linear(512, 10)))
    return Sample(_openmmlab("cls", model), "mmpretrain", {"model": truth})


def deep_openmmlab(model: Any) -> tuple[Any, State]:
    """mmseg's ResNetV1c: three convolutions in one Sequential `stem`; the truth under timm's names."""
    stem = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
    )  # fmt: skip
    del model.conv1, model.bn1, model.fc
    model.stem = stem
    _train_norms(stem, 5)
    truth = {}
    for key, tensor in model.state_dict().items():
        truth[key.replace("stem.7.", "bn1.").replace("stem.", "conv1.")] = tensor.clone()
    return model, truth


def mmdet() -> Sample:
    """A C4 detector trained with caffe preprocessing; its last stage is the shared head's."""
    backbone = resnet("resnet50")
    truth = trunk(backbone)
    layer4 = backbone.layer4
    del backbone.fc, backbone.layer4
    model = Holder(
        backbone=backbone,
        rpn_head=Holder(rpn_conv=nn.Conv2d(8, 8, 3)),
        roi_head=Holder(shared_head=Holder(layer4=layer4), bbox_head=Holder(fc_cls=nn.Linear(8, 8))),
    )
    cfg = {"mean": "103.53, 116.28, 123.675", "std": "1.0, 1.0, 1.0", "to_rgb": "False", "style": "caffe"}
    return Sample(_openmmlab("det", model, **cfg), "mmdet", {"model": truth}, MSRA, True, "resnet50")


def mmseg() -> Sample:
    backbone, truth = deep_openmmlab(resnet())
    average, _ = deep_openmmlab(resnet(seed=3))
    model = Holder(backbone=backbone, decode_head=Holder(conv_seg=nn.Conv2d(8, 8, 1)))
    document = _openmmlab("seg", model)
    document["ema_state_dict"] = Holder(module=Holder(backbone=average), steps=torch.tensor(1)).state_dict()
    unaveraged = {k.replace("stem.7.", "bn1.").replace("stem.", "conv1."): v for k, v in average.state_dict().items()}
    return Sample(document, "mmseg", {"model": truth, "unaveraged": unaveraged}, stem="deep")


def vissl() -> Sample:
    model = resnet()
    truth = trunk(model)
    children = collections.OrderedDict(list(model.named_children())[:-1])
    trunk_state = Holder(_feature_blocks=nn.ModuleDict(children)).state_dict()
    base = {"trunk": trunk_state, "heads": Holder(projection_head=mlp(512, 16, 8)).state_dict()}
    document = {
        "phase_idx": 9,
        "classy_state_dict": {"base_model": {"model": base, "meta": {}}},
        "type": "consolidated",
    }
    return Sample(document, "vissl", {"model": truth}, suffix=".torch")


def lightning(state: State, **extra: Any) -> dict[str, Any]:
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state,
        "callbacks": {},
        "lr_schedulers": [],
        **extra,
    }


def solo_learn() -> Sample:
    online, momentum, o, m = pair()
    model = Holder(
        backbone=online,
        classifier=nn.Linear(512, 10),
        projector=mlp(512, 16, 8),
        momentum_backbone=momentum,
        momentum_projector=mlp(512, 16, 8),
        predictor=mlp(8, 16, 8),
    )
    return Sample(lightning(model.state_dict()), "solo_learn", {"online": o, "momentum": m}, suffix=".ckpt")


def solo_learn_cifar() -> Sample:
    backbone = resnet(stem="cifar")
    truth = trunk(backbone)
    model = Holder(backbone=with_fc(backbone, nn.Identity()), classifier=nn.Linear(512, 10), projector=mlp(512, 16, 8))
    padded = ResNet("resnet18", "cifar", stem_padding=2)
    return Sample(lightning(model.state_dict()), "solo_learn", {"online": truth}, vit=padded, suffix=".ckpt")


LIGHTLY = Path(sys.prefix, "lightly")
"""Where `make providers` installs it, out of the way of everything else."""


@cache
def by_lightly() -> dict[str, dict[str, Any]]:
    """What the real library builds and computes, in a process that alone has it on its path; see `write_lightly`."""
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("fork").Process(target=write_lightly, args=(folder,))  # torch is there
        process.start()
        process.join()
        assert process.exitcode == 0
        found: dict[str, dict[str, Any]] = torch.load(Path(folder, "x.pt"), weights_only=True)
    return found


def write_lightly(folder: str) -> None:
    """As lightly's examples: `backbone`, `projection_head` and their momentum copies; for the process above."""
    sys.path.insert(0, str(LIGHTLY))
    import lightly
    from lightly.models import ResNetGenerator
    from lightly.models.modules import MaskedVisionTransformerTIMM, MoCoProjectionHead

    assert Path(lightly.__file__).is_relative_to(LIGHTLY)
    online, momentum, o, m = pair()
    generator = ResNetGenerator("resnet-18")
    _train_norms(generator, 0)
    masked = MaskedVisionTransformerTIMM(vit(num_classes=0))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, backbone, copies in (
        ("moco", nn.Sequential(*list(online.children())[:-1]), {"online": o, "momentum": m}),
        ("generator", nn.Sequential(*list(generator.children())[:-1], nn.AdaptiveAvgPool2d(1)), {}),
        ("vit", masked, {}),
    ):
        model = Holder(backbone=backbone, projection_head=MoCoProjectionHead(512, 16, 8))
        if name == "moco":
            model.backbone_momentum = nn.Sequential(*list(momentum.children())[:-1])
        with torch.inference_mode():
            output = backbone.eval()(images).flatten(1)
        found[name] = {"state": model.state_dict(), "images": images, "output": output, "branches": copies}
    torch.save(found, Path(folder, "x.pt"))


def lightly() -> Sample:
    given = by_lightly()["moco"]
    return Sample(given["state"], "lightly", given["branches"])


def lightly_vit() -> Sample:
    """Its vision transformers (MAE, MSN, iBOT, I-JEPA) are timm's, in `vit`."""
    state = by_lightly()["vit"]["state"]
    start = "backbone.vit."
    truth = {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}
    return Sample(state, "lightly", {"online": truth}, vit=TINY)


def lightly_cifar() -> Sample:
    model = resnet(stem="cifar")
    truth = trunk(model)
    children = [child for name, child in model.named_children() if name not in ("maxpool", "fc")]
    state = Holder(backbone=nn.Sequential(*children), projection_head=mlp(512, 16, 8)).state_dict()
    return Sample(lightning(state), "lightly", {"online": truth}, stem="cifar", suffix=".ckpt")


def lightly_train() -> Sample:
    """DINO: the model that they export is the teacher's; it is in the file as a whole pickled module, too."""
    student, teacher, s, t = pair()
    wrapped = []
    for model in (student, teacher):
        features = torchvision.models._utils.IntermediateLayerGetter(model, {"layer4": "3"})
        wrapped.append(Holder(wrapped_model=Holder(_features=features), embed=nn.Identity()))
    state = Holder(
        teacher_embedding_model=wrapped[1],
        teacher_projection_head=mlp(512, 8),
        student_embedding_model=wrapped[0],
        student_projection_head=mlp(512, 8),
    ).state_dict()
    normalize = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3)}
    info = {"version": "0.18.0", "models": {"model": teacher}, "normalize_args": normalize, "license_info": None}
    return Sample(
        lightning(state, lightly_train=info),
        "lightly_train",
        {"model": t, "student": s, "teacher": t},
        Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)),
        suffix=".ckpt",
    )


def lightly_train_vit() -> Sample:
    """As its DINOv2 wrapper keeps the network, in `_model`."""
    models = [vit(seed, num_classes=0) for seed in (1, 2)]
    student, teacher = (Holder(wrapped_model=Holder(_model=model)) for model in models)
    state = Holder(student_embedding_model=student, teacher_embedding_model=teacher).state_dict()
    normalize = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    info = {"version": "0.18.0", "models": {"model": models[1]}, "normalize_args": normalize}
    s, t = (vit_trunk(model) for model in models)
    branches = {"model": t, "student": s, "teacher": t}
    return Sample(lightning(state, lightly_train=info), "lightly_train", branches, suffix=".ckpt", vit=TINY)


def lightning_other() -> Sample:
    model = resnet("resnext50_32x4d")
    state = Holder(net=Holder(features=model), head=nn.Linear(2048, 3)).state_dict()
    return Sample(lightning(state), "lightning", {"model": trunk(model)}, arch="resnext50_32x4d", suffix=".ckpt")


def renamed(truth: State, naming: str) -> dict[str, Any]:
    rename = NAMINGS[naming]
    return {rename(key): tensor.numpy() for key, tensor in truth.items() if "num_batches" not in key}


def uncounted(truth: State) -> State:
    return {key: torch.zeros_like(v) if "num_batches" in key else v for key, v in truth.items()}


def detectron2_converted() -> Sample:
    """As MoCo's and CGH's converters write it, left-over head and all."""
    truth = trunk(resnet())
    model = renamed(truth, "detectron2") | {"stem.fc.0.weight": np.zeros((8, 8), np.float32)}
    document = {"model": model, "__author__": "MOCO", "matching_heuristics": True}
    return Sample(document, "detectron2", {"model": uncounted(truth)}, suffix=".pkl")


def detectron2_c4() -> Sample:
    """model_final.pth of a C4 detector with detectron2's default preprocessing."""
    truth = trunk(resnet("resnet50"))
    state = {}
    for name, array in renamed(truth, "detectron2").items():
        state[("roi_heads." if name.startswith("res5") else "backbone.") + name] = torch.from_numpy(array)
    state |= {"proposal_generator.rpn_head.conv.weight": torch.zeros(4, 4, 3, 3)}
    document = {"model": state, "optimizer": {}, "iteration": 23999}
    beside = {
        "config.yaml": "INPUT: {FORMAT: BGR}\nMODEL: {PIXEL_MEAN: [103.53, 116.28, 123.675],"
        " PIXEL_STD: [1.0, 1.0, 1.0], RESNETS: {STRIDE_IN_1X1: true}}\n"
    }
    return Sample(document, "detectron2", {"model": uncounted(truth)}, MSRA, True, "resnet50", beside=beside)


def detectron2_fpn() -> Sample:
    """An older file, which has the pixel statistics as buffers."""
    truth = trunk(resnet())
    state = {f"backbone.bottom_up.{name}": torch.from_numpy(a) for name, a in renamed(truth, "detectron2").items()}
    state |= {
        "backbone.fpn_lateral2.weight": torch.zeros(4, 4, 1, 1),
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1),
        "pixel_std": torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1),
    }
    return Sample({"model": state}, "detectron2", {"model": uncounted(truth)})


def msra() -> Sample:
    """R-50.pkl of Detectron: BatchNorm folded into scale and offset."""
    truth = trunk(resnet("resnet50"))
    folded = uncounted(truth)
    for key in folded:
        if key.endswith("running_mean"):
            folded[key] = torch.zeros_like(folded[key])
        if key.endswith("running_var"):
            folded[key] = torch.ones_like(folded[key]) - 1e-5
    blobs = {k: v for k, v in renamed(truth, "caffe2").items() if not k.endswith(("_rm", "_riv"))}
    document = {"blobs": blobs | {"fc1000_w": np.zeros((4, 4), np.float32), "conv1_w_momentum": blobs["conv1_w"]}}
    return Sample(document, "msra", {"model": folded}, MSRA, True, "resnet50", suffix=".pkl")


def caffe2_resnext() -> Sample:
    truth = trunk(resnet("resnext50_32x4d"))
    document = {"blobs": renamed(truth, "caffe2")}
    return Sample(document, "msra", {"model": uncounted(truth)}, X101, arch="resnext50_32x4d", suffix=".pkl")


def huggingface() -> Sample:
    """transformers' own ResNetForImageClassification."""
    import json

    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(depths=[3, 4, 6, 3], hidden_sizes=[256, 512, 1024, 2048], layer_type="bottleneck")
    model = filled(lambda: ResNetForImageClassification(config).eval())
    _train_norms(model, 4)
    state = model.state_dict()
    rename = NAMINGS["huggingface"]
    truth = {key: state[f"resnet.{rename(key)}"] for key in trunk(resnet("resnet50"))}
    return Sample(
        {key: tensor.contiguous() for key, tensor in state.items()},
        "huggingface",
        {"model": truth},
        Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        arch="resnet50",
        folder={
            "config.json": config.to_json_string(),
            "preprocessor_config.json": json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        },
    )


def timm_training() -> Sample:
    import timm

    models = [filled(lambda: timm.create_model("resnet18")) for _ in range(2)]
    for seed, model in enumerate(models):
        _train_norms(model, seed)
    document = {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": models[0].state_dict(),
        "optimizer": {},
        "version": 2,
        "args": argparse.Namespace(model="resnet18"),
        "state_dict_ema": models[1].state_dict(),
        "metric": np.float64(71.2),
    }
    return Sample(document, "timm", {"ema": trunk(models[1]), "model": trunk(models[0])}, suffix=".pth.tar")


def timm_deep() -> Sample:
    from timm.models.resnet import Bottleneck, ResNet

    model = filled(lambda: ResNet(Bottleneck, (3, 4, 6, 3), stem_type="deep", stem_width=32))
    _train_norms(model, 6)
    return Sample(model.state_dict(), "timm", {"model": trunk(model)}, arch="resnet50", stem="deep")


def timm_hub() -> Sample:
    import json

    import timm

    model = filled(lambda: timm.create_model("resnet18"))
    _train_norms(model, 6)
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    return Sample(
        model.state_dict(),
        "timm",
        {"model": trunk(model)},
        Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        folder={"config.json": json.dumps(config)},
    )


TINY = ViT("vit_tiny_patch16_64")


def vit(seed: int = 0, **options: Any) -> Any:
    """timm's own network; the number of heads is not in the tensors."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    usual = {"img_size": 64, "embed_dim": 192, "depth": 12, "num_heads": 3, "num_classes": 10}
    return filled(lambda: VisionTransformer(**usual | options))


def vit_trunk(model: nn.Module) -> State:
    return {key: tensor.clone() for key, tensor in model.state_dict().items() if not key.startswith("head.")}


def timm_vit() -> Sample:
    """Bare, as DINO, MAE and DeiT publish theirs."""
    model = vit(patch_size=8)
    return Sample(model.state_dict(), "timm", {"model": vit_trunk(model)}, vit=ViT("vit_tiny_patch8_64"))


def dinov2() -> Sample:
    """As published, with registers: layer scale, a mask token, and a position for the class token."""
    model = vit(init_values=1.0, reg_tokens=4, no_embed_class=True, patch_size=14, img_size=56, num_classes=0)
    truth = vit_trunk(model)
    state = dict(truth)
    position = torch.rand(1, 1, 192)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([position, truth["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 192)
    truth["cls_token"] = truth["cls_token"] + position
    architecture = ViT("vit_tiny_patch14_56", class_position=False, registers=4, layer_scale=True, positions="dino")
    return Sample(state, "timm", {"model": truth}, vit=architecture)


def dino_vit() -> Sample:
    models = [vit(seed, num_classes=0) for seed in (1, 2)]
    student, teacher = (Holder(backbone=model, head=Holder(mlp=mlp(192, 16, 8))) for model in models)
    document = {"student": ddp(student), "teacher": teacher.state_dict(), "args": argparse.Namespace(arch="vit_tiny")}
    branches = {"teacher": vit_trunk(models[1]), "student": vit_trunk(models[0])}
    return Sample(document, "dino", branches, vit=ViT(TINY.name, positions="dino"))


def moco_v3_vit() -> Sample:
    base, momentum = (vit(seed) for seed in (1, 2))
    branches = {"base": vit_trunk(base), "momentum": vit_trunk(momentum)}
    base.head, momentum.head = (mlp(192, 16, 8, bias=False) for _ in range(2))
    model = Holder(base_encoder=base, momentum_encoder=momentum, predictor=mlp(8, 16, 8))
    return Sample({"epoch": 300, "state_dict": ddp(model)}, "moco_v3", branches, suffix=".pth.tar", vit=TINY)


def mae() -> Sample:
    model = vit(num_classes=0)
    truth = vit_trunk(model)
    decoder = vit(seed=1, depth=2, num_classes=0)
    model.mask_token = nn.Parameter(torch.zeros(1, 1, 192))
    model.decoder_embed, model.decoder_blocks, model.decoder_norm = nn.Linear(192, 192), decoder.blocks, decoder.norm
    model.decoder_pos_embed = nn.Parameter(torch.zeros(1, 17, 192))
    document = {"model": model.state_dict(), "epoch": 800, "args": argparse.Namespace(model="mae_vit")}
    return Sample(document, "mae", {"model": truth}, vit=TINY)


def ijepa() -> Sample:
    """No class token; the predictor is a transformer too."""
    networks = [vit(seed, num_classes=0, class_token=False, global_pool="") for seed in (1, 2)]
    predictor = vit(3, depth=2, num_classes=0)
    document = {
        "encoder": {f"module.{key}": tensor for key, tensor in networks[0].state_dict().items()},
        "predictor": {f"module.predictor_{key}": tensor for key, tensor in predictor.state_dict().items()},
        "target_encoder": {f"module.{key}": tensor for key, tensor in networks[1].state_dict().items()},
        "epoch": 300,
    }
    branches = {"target": vit_trunk(networks[1]), "context": vit_trunk(networks[0])}
    architecture = ViT("vit_tiny_patch16_64", class_token=False, class_position=False)
    return Sample(document, "ijepa", branches, suffix=".pth.tar", vit=architecture)


def msn() -> Sample:
    networks = [vit(seed, num_classes=0) for seed in (1, 2)]
    encoder, target = (ddp(Holder(**dict(model.named_children()), fc=mlp(192, 16, 8))) for model in networks)
    for state, model in zip((encoder, target), networks, strict=True):
        state |= {"module.cls_token": model.cls_token.data, "module.pos_embed": model.pos_embed.data}
    document = {"encoder": encoder, "target_encoder": target, "prototypes": torch.rand(4, 8), "epoch": 300}
    branches = {"target": vit_trunk(networks[1]), "context": vit_trunk(networks[0])}
    return Sample(document, "msn", branches, suffix=".pth.tar", vit=ViT(TINY.name, positions="transformers"))


def dinov2_teacher() -> Sample:
    """A training checkpoint: its blocks are in chunks, numbered through."""
    model = vit(init_values=1.0, num_classes=0)
    truth = vit_trunk(model)
    state = {"backbone.mask_token": torch.zeros(1, 192), "dino_head.mlp.0.weight": torch.ones(2, 2)}
    for key, tensor in truth.items():
        chunked = re.sub(r"blocks\.(\d+)", lambda number: f"blocks.{int(number[1]) // 3}.{number[1]}", key)
        state[f"backbone.{chunked}"] = tensor
    architecture = ViT(TINY.name, layer_scale=True, positions="dino")
    return Sample({"teacher": state}, "dino", {"teacher": truth}, vit=architecture)


def supcontrast() -> Sample:
    """Its encoder alone is parallel; blocks have a `shortcut`."""
    encoder = resnet(stem="cifar")
    truth = trunk(encoder)
    state = {f"encoder.module.{NAMINGS['shortcut'](key)}": tensor for key, tensor in truth.items()}
    state |= {f"head.{key}": tensor for key, tensor in mlp(512, 512, 8).state_dict().items()}
    opt = argparse.Namespace(model="resnet18", dataset="cifar10")
    images = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    return Sample({"opt": opt, "model": state, "epoch": 9}, "supcontrast", {"model": truth}, images, stem="cifar")


def solo_learn_vit() -> Sample:
    model = vit(num_classes=0)
    state = Holder(backbone=model, classifier=nn.Linear(192, 10), projector=mlp(192, 16, 8)).state_dict()
    return Sample(lightning(state), "solo_learn", {"online": vit_trunk(model)}, suffix=".ckpt", vit=TINY)


def mmpretrain_vit() -> Sample:
    """mmpretrain's VisionTransformer: `layers`, `ln1`, `ffn.layers`."""
    model = vit(num_classes=0)
    layers = [
        Holder(
            ln1=block.norm1,
            attn=Holder(qkv=block.attn.qkv, proj=block.attn.proj),
            ln2=block.norm2,
            ffn=Holder(layers=nn.Sequential(nn.Sequential(block.mlp.fc1, nn.GELU()), block.mlp.fc2)),
        )
        for block in model.blocks
    ]
    backbone = Holder(
        cls_token=model.cls_token,
        pos_embed=model.pos_embed,
        patch_embed=Holder(projection=model.patch_embed.proj),
        layers=nn.ModuleList(layers),
        ln1=model.norm,
    )
    head = Holder(layers=nn.ModuleDict({"head": nn.Linear(192, 10)}))
    document = _openmmlab("cls", Holder(backbone=backbone, head=head))
    return Sample(document, "mmpretrain", {"model": vit_trunk(model)}, vit=TINY)


def huggingface_vit(dinov2: bool) -> Sample:
    """transformers' own network, as its `save_pretrained` writes it."""
    import json

    import safetensors.torch
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification

    shape = {"image_size": 64, "patch_size": 16, "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768}
    torch.manual_seed(0)
    if dinov2:
        whole = network = filled(lambda: Dinov2Model(Dinov2Config(**shape, layer_norm_eps=1e-6)).eval())
        blocks, names = network.encoder.layer, ("norm1", "norm2")
    else:
        whole = filled(lambda: ViTForImageClassification(ViTConfig(**shape)))
        network = whole.vit
        blocks, names = network.layers, ("layernorm_before", "layernorm_after")
    embeddings = network.embeddings
    truth = {"cls_token": embeddings.cls_token, "pos_embed": embeddings.position_embeddings}
    modules = {"patch_embed.proj": embeddings.patch_embeddings.projection}
    for number, block in enumerate(blocks):
        at, heads = f"blocks.{number}", block.attention
        parts = {
            leaf: [getattr(p, leaf) for p in (heads.q_proj, heads.k_proj, heads.v_proj)] for leaf in ("weight", "bias")
        }
        modules[f"{at}.norm1"] = getattr(block, names[0])
        truth |= {f"{at}.attn.qkv.{leaf}": torch.cat(tensors) for leaf, tensors in parts.items()}
        modules |= {f"{at}.attn.proj": heads.o_proj, f"{at}.norm2": getattr(block, names[1])}
        modules |= {f"{at}.mlp.fc1": block.mlp.fc1, f"{at}.mlp.fc2": block.mlp.fc2}
        if dinov2:
            truth |= {f"{at}.ls1.gamma": block.layer_scale1.lambda1, f"{at}.ls2.gamma": block.layer_scale2.lambda1}
    modules["norm"] = network.layernorm
    truth |= {
        f"{name}.{leaf}": getattr(module, leaf) for name, module in modules.items() for leaf in ("weight", "bias")
    }
    with tempfile.TemporaryDirectory() as folder:
        whole.save_pretrained(folder)
        document = safetensors.torch.load_file(Path(folder, "model.safetensors"))
        config = Path(folder, "config.json").read_text()
    return Sample(
        document,
        "huggingface",
        {"model": {key: tensor.detach() for key, tensor in truth.items()}},
        Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        folder={
            "config.json": config,
            "preprocessor_config.json": json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        },
        vit=ViT(TINY.name, 32, 1e-6 if dinov2 else 1e-12, layer_scale=dinov2, positions="transformers"),
    )


def ema() -> Sample:
    online, average, o, a = pair(lambda: nn.Linear(512, 10))
    model = Holder(online_model=online, ema_model=average, initted=torch.tensor(True), step=torch.tensor(5))
    return Sample(model.state_dict(), "ema", {"ema": a, "online": o})


def unknown_prefixes() -> Sample:
    """No known origin, and wrappers in an order of their own; one trunk, stored in half precision."""
    model = resnet()
    state = Holder(_orig_mod=Holder(module=Holder(my_backbone=Holder(_orig_mod=model)))).state_dict()
    state = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    truth = {k: v.half().float() if v.is_floating_point() else v for k, v in trunk(model).items()}
    return Sample({"weights": state}, "unknown", {"weights/my_backbone": truth})


@dataclass(frozen=True)
class Origin:
    source: str
    make: Callable[[], Sample]
    needs: str | None = None
    """A package that must be installed."""


ORIGINS = {
    "torchvision": Origin("torchvision", torchvision_plain),
    "torchvision_reference": Origin("torchvision", torchvision_reference),
    "imagenet_example": Origin("torchvision", imagenet_example),
    "torchvision_segmentation": Origin("torchvision_segmentation", torchvision_segmentation),
    "whole_model": Origin("torchvision", whole_model),
    "cgh": Origin("cgh", cgh),
    "moco_v1": Origin("moco_v1", lambda: moco(1)),
    "moco_v2": Origin("moco_v2", lambda: moco(2)),
    "moco_v3": Origin("moco_v3", moco_v3),
    "simclr_sthalles": Origin("simclr", simclr_sthalles),
    "simclr_spijkervet": Origin("simclr", simclr_spijkervet),
    "simsiam": Origin("simsiam", simsiam),
    "byol_lucidrains": Origin("byol", byol_lucidrains),
    "byol_sthalles": Origin("byol_sthalles", byol_sthalles),
    "swav": Origin("swav", swav),
    "barlow_twins": Origin("barlow_twins", barlow_twins),
    "vicreg": Origin("vicreg", vicreg),
    "dino": Origin("dino", dino),
    "ressl": Origin("ressl", ressl),
    "pixpro": Origin("pixpro", pixpro),
    "densecl": Origin("densecl", lambda: openselfsup(dense=True)),
    "openselfsup": Origin("openselfsup", lambda: openselfsup(dense=False)),
    "mmselfsup": Origin("mmselfsup", mmselfsup, needs="mmengine"),
    "mmpretrain": Origin("mmpretrain", mmpretrain, needs="mmengine"),
    "mmdet": Origin("mmdet", mmdet, needs="mmengine"),
    "mmseg": Origin("mmseg", mmseg, needs="mmengine"),
    "vissl": Origin("vissl", vissl),
    "solo_learn": Origin("solo_learn", solo_learn),
    "solo_learn_cifar": Origin("solo_learn", solo_learn_cifar),
    "lightly": Origin("lightly", lightly, needs="lightly"),
    "lightly_vit": Origin("lightly", lightly_vit, needs="lightly"),
    "lightly_cifar": Origin("lightly", lightly_cifar),
    "lightly_train": Origin("lightly_train", lightly_train),
    "lightly_train_vit": Origin("lightly_train", lightly_train_vit),
    "lightning_other": Origin("lightning", lightning_other),
    "detectron2_converted": Origin("detectron2", detectron2_converted),
    "detectron2_c4": Origin("detectron2", detectron2_c4),
    "detectron2_fpn": Origin("detectron2", detectron2_fpn),
    "msra": Origin("msra", msra),
    "caffe2_resnext": Origin("msra", caffe2_resnext),
    "huggingface": Origin("huggingface", huggingface, needs="transformers"),
    "timm_training": Origin("timm", timm_training, needs="timm"),
    "timm_deep": Origin("timm", timm_deep, needs="timm"),
    "timm_hub": Origin("timm", timm_hub, needs="timm"),
    "timm_vit": Origin("timm", timm_vit),
    "dinov2": Origin("timm", dinov2),
    "dino_vit": Origin("dino", dino_vit),
    "moco_v3_vit": Origin("moco_v3", moco_v3_vit),
    "mae": Origin("mae", mae),
    "ijepa": Origin("ijepa", ijepa),
    "msn": Origin("msn", msn),
    "supcontrast": Origin("supcontrast", supcontrast),
    "dinov2_teacher": Origin("dino", dinov2_teacher),
    "solo_learn_vit": Origin("solo_learn", solo_learn_vit),
    "mmpretrain_vit": Origin("mmpretrain", mmpretrain_vit, needs="mmengine"),
    "huggingface_vit": Origin("huggingface", lambda: huggingface_vit(dinov2=False), needs="transformers"),
    "huggingface_dinov2": Origin("huggingface", lambda: huggingface_vit(dinov2=True), needs="transformers"),
    "ema": Origin("ema", ema),
    "unknown_prefixes": Origin("unknown", unknown_prefixes),
}
