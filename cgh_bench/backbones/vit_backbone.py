"""The vision transformer: timm's own network and key names, with the features that frozen evaluation asks for."""

from functools import partial
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cgh_bench.backbones.vit import ViT
from cgh_bench.core.errors import UserError


class ViTBackbone(VisionTransformer):
    """A vision transformer without its classifier.

    Images of another size than `architecture.image_side` are taken as timm does: the position embeddings of the
    patches are resampled to the new grid, bicubic with antialiasing.

    Attributes:
        architecture: what was built.
        dim: width `D` of a token.
    """

    def __init__(self, architecture: ViT) -> None:
        super().__init__(**network_arguments(architecture), num_classes=0, global_pool="", dynamic_img_size=True)
        self.architecture = architecture
        self.dim = architecture.dim

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """All tokens after each block and after the final norm: `{"block1": (B, 1 + HW / patch², D), …, "norm": …}`."""
        return block_outputs(self, images)

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of what `pooled` returns for `targets`."""
        return self.dim * len(targets)

    def pooled(self, images: Tensor, targets: tuple[str, ...]) -> Tensor:
        """The targets side by side, (B, D).

        Args:
            images: (B, 3, H, W), preprocessed; H and W are multiples of the patch.
            targets: names, in the order of `ViT.targets`.

        Raises:
            UserError: images of another size.
        """
        patch, (height, width) = self.architecture.patch, images.shape[-2:]
        if height % patch or width % patch:
            raise UserError(
                f"{self.architecture.name} takes images whose sides are multiples of {patch}, not {height}x{width}; "
                "set the transform's crop (or resize) so"
            )
        last = self.architecture.depth - 1
        blocks = {target: int(target[5:]) - 1 for target in targets if target.startswith("block")}
        indices = sorted({*blocks.values(), last})
        found = _tokens(self, images, indices=indices, norm=True)
        patches = dict(zip(indices, found["image_intermediates"], strict=True))
        if self.architecture.class_token:
            prefixes = zip(indices, found["image_intermediates_prefix"], strict=True)
            summary = {index: prefix[:, 0] for index, prefix in prefixes}
        else:
            summary = {index: tokens.mean(dim=1) for index, tokens in patches.items()}
        chosen = [
            patches[last].mean(dim=1) if target == "patch_mean" else summary[blocks.get(target, last)]
            for target in targets
        ]
        return torch.cat(chosen, dim=1)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """The global feature (B, D) of `images` (B, 3, H, W): the class token, or the mean of the patches."""
        return self.pooled(images, self.architecture.targets("layer4"))


def _tokens(network: VisionTransformer, images: Tensor, **how: Any) -> dict[str, Any]:
    """The dictionary of what blocks put out, prefix tokens (class, registers) and patches apart."""
    found = network.forward_intermediates(images, output_fmt="NLC", output_dict=True, return_prefix_tokens=True, **how)
    return cast(dict[str, Any], found)


def block_outputs(network: VisionTransformer, images: Tensor) -> dict[str, Tensor]:
    """All tokens of timm's `network` after each block and after the final norm, (B, tokens, D)."""
    found = _tokens(network, images)
    patches = found["image_intermediates"]
    prefixes = found.get("image_intermediates_prefix", [tokens[:, :0] for tokens in patches])
    outputs = {
        f"block{number}": torch.cat(parts, dim=1)
        for number, parts in enumerate(zip(prefixes, patches, strict=True), start=1)
    }
    return {**outputs, "norm": found["image_features"]}


def network_arguments(architecture: ViT) -> dict[str, Any]:
    """The arguments of timm's `VisionTransformer` that say what it is."""
    return {
        "img_size": architecture.image_side,
        "patch_size": architecture.patch,
        "embed_dim": architecture.dim,
        "depth": architecture.depth,
        "num_heads": architecture.dim // architecture.head_width,
        "class_token": architecture.class_token,
        "no_embed_class": not architecture.class_position,
        "reg_tokens": architecture.registers,
        "init_values": 1e-5 if architecture.layer_scale else None,
        "norm_layer": partial(nn.LayerNorm, eps=architecture.norm_eps),
    }
