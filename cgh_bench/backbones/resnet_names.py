"""How others name the tensors of a ResNet: one total, injective function from our names to theirs per family."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from cgh_bench.backbones.resnet import STAGES

Rename = Callable[[str], str]

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
COUNTER = ("num_batches_tracked",)
"""Old PyTorch, detectron2 and Caffe2 have no batch counters."""
_BN = ("weight", "bias", *BUFFERS)
_MOST_BLOCKS = 36  # the third stage of a ResNet-152
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([123])|downsample\.([01]))\.(\w+)")


def torchvision(key: str) -> str:
    """Ours are torchvision's; timm's too, the deep stem (`conv1.0` … `conv1.6`) included."""
    return key


def openmmlab_deep(key: str) -> str:
    """A deep stem in mmdetection, mmsegmentation and mmpretrain: one Sequential `stem`; otherwise torchvision's names.

    Source: `ResNet._make_stem_layer`, open-mmlab/mmdetection@v3.3.0 mmdet/models/backbones/resnet.py.
    """
    module, leaf = key.rsplit(".", 1)
    index = {"bn1": "7"}.get(module) or (module.removeprefix("conv1.") if module.startswith("conv1.") else None)
    return f"stem.{index}.{leaf}" if index else key


def detectron2(key: str) -> str:
    """`stem.conv1`, `res2` … `res5`, norms inside their convolutions, `shortcut`.

    Source: facebookresearch/detectron2@v0.6 tools/convert-torchvision-to-d2.py.
    """
    if match := _BLOCK.fullmatch(key):
        stage, block, kind, index, shortcut, leaf = match.groups()
        module = "shortcut" if shortcut else f"conv{index}"
        norm = ".norm" if kind == "bn" or shortcut == "1" else ""
        return f"res{int(stage) + 1}.{block}.{module}{norm}.{leaf}"
    if key.startswith("conv1."):
        return f"stem.{key}"
    return key.replace("bn1.", "stem.conv1.norm.")


def caffe2(key: str) -> str:
    """Detectron's `.pkl` files (MSRA, X-101): `res2_0_branch2a_w`, with the norms as `_bn_s`, `_bn_b`.

    Source: `convert_basic_c2_names`, facebookresearch/detectron2@v0.6 detectron2/checkpoint/c2_model_loading.py.
    """
    if match := _BLOCK.fullmatch(key):
        stage, block, kind, index, shortcut, leaf = match.groups()
        branch = "branch1" if shortcut else f"branch2{'abc'[int(index) - 1]}"
        module = f"res{int(stage) + 1}_{block}_{branch}"
        return f"{module}_bn{_CAFFE2_LEAF[leaf]}" if kind == "bn" or shortcut == "1" else f"{module}_w"
    name, leaf = key.rsplit(".", 1)
    if name == "bn1":
        return f"res_conv1_bn{_CAFFE2_LEAF[leaf]}"
    return "conv1_w" if key == "conv1.weight" else key.replace(".", "_")  # it has no deep stems


_CAFFE2_LEAF = {
    "weight": "_s",
    "bias": "_b",
    "running_mean": "_rm",
    "running_var": "_riv",
    "num_batches_tracked": "_num_batches_tracked",  # never in a file: Caffe2 has no such counter
}


def huggingface(key: str) -> str:
    """`ResNetModel` of transformers: `embedder.embedder`, `encoder.stages.0.layers.0.layer.0.convolution`.

    Source: huggingface/transformers@v5.0.0 src/transformers/models/resnet/modeling_resnet.py.
    """
    if match := _BLOCK.fullmatch(key):
        stage, block, kind, index, shortcut, leaf = match.groups()
        module = "shortcut" if shortcut else f"layer.{int(index) - 1}"
        part = "normalization" if kind == "bn" or shortcut == "1" else "convolution"
        return f"encoder.stages.{int(stage) - 1}.layers.{block}.{module}.{part}.{leaf}"
    key = re.sub(r"^conv1\.", "embedder.embedder.convolution.", key)
    return re.sub(r"^bn1\.", "embedder.embedder.normalization.", key)


def sequential(key: str) -> str:
    """`nn.Sequential(*list(resnet.children())[:-1])`, as lightly's examples build: conv, norm, relu, pool, stages."""
    return _indexed(key, first_stage=4)


def sequential_no_pool(key: str) -> str:
    """The same without the max-pool: stages start at 3."""
    return _indexed(key, first_stage=3)


def _indexed(key: str, first_stage: int) -> str:
    module, rest = key.split(".", 1)
    indices = {"conv1": 0, "bn1": 1} | {stage: first_stage + i for i, stage in enumerate(STAGES)}
    return f"{indices[module]}.{rest}"


def shortcut(key: str) -> str:
    """The ResNets for CIFAR that many copy: torchvision's names, but `shortcut`.

    Source: HobbitLong/SupContrast networks/resnet_big.py.
    """
    return key.replace("downsample", "shortcut")


def sequential_shortcut(key: str) -> str:
    """The same as a Sequential of its children: lightly's ResNetGenerator, whose stages follow the norm.

    What is a function in its `forward`, the ReLU between them, is lost in a Sequential: nobody's ResNet.
    Source: lightly-ai/lightly (1.6.0) lightly/models/resnet.py.
    """
    return shortcut(_indexed(key, first_stage=2))


NAMINGS: Mapping[str, Rename] = {
    "torchvision": torchvision,
    "openmmlab_deep": openmmlab_deep,
    "detectron2": detectron2,
    "caffe2": caffe2,
    "huggingface": huggingface,
    "sequential": sequential,
    "sequential_no_pool": sequential_no_pool,
    "shortcut": shortcut,
    "sequential_shortcut": sequential_shortcut,
}


@cache
def canonical_names(naming: str) -> Mapping[str, str]:
    """Every name that the family `naming` can give a tensor, to ours."""
    rename = NAMINGS[naming]
    table = {rename(key): key for key in _every_key()}
    assert len(table) == sum(1 for _ in _every_key()), f"{naming} gives two tensors one name"
    return table


def _every_key() -> Iterator[str]:
    yield "conv1.weight"
    yield from (f"conv1.{i}.weight" for i in (0, 3, 6))
    yield from (f"{norm}.{leaf}" for norm in ("bn1", "conv1.1", "conv1.4") for leaf in _BN)
    for stage in STAGES:
        for block in range(_MOST_BLOCKS):
            at = f"{stage}.{block}"
            yield f"{at}.downsample.0.weight"
            yield from (f"{at}.conv{i}.weight" for i in (1, 2, 3))
            yield from (f"{at}.{norm}.{leaf}" for norm in ("bn1", "bn2", "bn3", "downsample.1") for leaf in _BN)
