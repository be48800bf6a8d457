"""mmdetection and mmsegmentation: a `.pth` of bare names, for `init_cfg=dict(type='Pretrained', checkpoint=…)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.backbones import resnet_names as naming
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet import ResNet, require_resnet
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters import parity
from cgh_bench.converters.flat import FlatConverter
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks

if TYPE_CHECKING:
    from torch import Tensor

_NOTE = '''"""Preprocessing and backbone that {weights} needs, to be laid over a config of your own.

Add the line `_base_ = 'YOUR_CONFIG.py'` below this text and train with this file. (In a `_base_` list beside another
file with a `model` mmengine refuses it: bases must not share keys.)
Written by `cgh-bench convert` for {name} ({id}). Images are loaded as BGR, 0 to 255, as always in OpenMMLab.
A C4 detector needs the last stage in its shared head too: the same file, with the same init_cfg.
"""
'''


@dataclass(frozen=True)
class OpenMMLab(FlatConverter):
    """For mmdetection and mmsegmentation: the backbone's own names, without the prefix `backbone.`.

    So `init_cfg` needs no prefix, the same file fills a C4 detector's shared head, and wrong use fails: mmengine
    stops if a prefix is requested that the file does not have.
    """

    BESIDE: ClassVar[str] = "`OUT.config.py`: data preprocessor and backbone, to merge into your config"
    FAMILY: ClassVar = ResNet

    suffixes: tuple[str, ...] = (".pth",)
    preprocessor: str = ""
    """Class of the framework's data preprocessor."""
    padding: str = ""
    """What else that class must be told."""

    def rename(self, key: str, architecture: Architecture) -> str:
        """The framework's name for our `key`."""
        return naming.openmmlab_deep(key) if require_resnet(architecture, self.name).stem == "deep" else key

    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what the framework cannot build."""
        architecture = require_resnet(checkpoint.architecture, self.name)
        if architecture.stem == "cifar" or architecture.name.startswith("wide"):
            raise UserError(
                f"{self.name} cannot build {architecture.name} with the {architecture.stem} stem; "
                "it has ResNet and ResNeXt with the imagenet or deep stem"
            )

    def fragments(self, checkpoint: Checkpoint, path: Path) -> dict[str, str]:
        """The part of an mmengine config that the weights imply, by file name."""
        given = checkpoint.preprocessing
        architecture = require_resnet(checkpoint.architecture, checkpoint.name)
        scale = 255 / given.input_range
        mean, std = ([round(scale * value, 6) for value in values] for values in (given.mean, given.std))
        options = {
            "depth": architecture.depth,
            "style": "caffe" if architecture.stride_in_1x1 else "pytorch",
        }
        kind = "ResNet"
        if architecture.name.startswith("resnext"):
            kind = "ResNeXt"
            groups, width = architecture.groups_and_width
            options |= {"groups": groups, "base_width": width}
        if architecture.stem == "deep":
            options["deep_stem"] = True
        settings = "".join(f"\n        {key}={value!r}," for key, value in options.items())
        text = _NOTE.format(weights=path.name, name=checkpoint.name, id=checkpoint.id) + (
            f"model = dict(\n    data_preprocessor=dict(\n        type={self.preprocessor!r},\n"
            f"        mean={mean},\n        std={std},\n        bgr_to_rgb={given.channel_order == 'RGB'},\n"
            f"        {self.padding},\n    ),\n    backbone=dict(\n        type={kind!r},{settings}\n"
            f"        init_cfg=dict(type='Pretrained', checkpoint='{{{{ fileDirname }}}}/{path.name}'),\n    ),\n)\n"
        )
        return {f"{path.name}.config.py": text}

    def require_installed(self) -> None:
        """See `Converter`."""
        frameworks.require_installed(self.name)

    def outputs(self, path: Path, pixels: Tensor) -> parity.Outputs:
        """What the framework's network makes of RGB `pixels`, preprocessed and built as the fragment beside says."""
        return parity.foreign_outputs(self.name, path, path.with_name(f"{path.name}.config.py"), pixels)


CONVERTERS = {
    "mmdet": OpenMMLab("mmdet", preprocessor="DetDataPreprocessor", padding="pad_size_divisor=32"),
    "mmseg": OpenMMLab("mmseg", preprocessor="SegDataPreProcessor", padding="pad_val=0,\n        seg_pad_val=255"),
}
