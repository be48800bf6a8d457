"""The carried backbone in OpenMMLab: `Carried` and `SimpleFeaturePyramid` for configurations, filled in by `fit`.

A protocol says `"backbone": {"type": "Carried", "architecture": NAME, …}`; a run puts the checkpoint's file in place of
the name. The channels that neck and heads read are the backbone's. For a backbone with a single scale,
`neck_of_one_scale` takes the place of `model.neck`.
"""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from cgh_bench.transfer_configs.contract import carried
from cgh_bench.transfer_configs.contract.simple_pyramid import ChannelNorm, SimpleFeaturePyramid

MODELS.register_module(module=carried.Carried)
MODELS.register_module(module=SimpleFeaturePyramid)
MODELS.register_module("ChannelNorm", module=ChannelNorm)


def fit(config: Config, weights: Path | None) -> None:
    """Fill in what a protocol leaves to the backbone in the file `weights` (None: the protocol's example)."""
    model = config.model
    if weights is not None:
        model.backbone.architecture = str(weights)
    given = carried.require(carried.architecture_of(model.backbone.architecture), "any", "this protocol")
    (width, stride), channels = (given.channels[-1], given.strides[-1]), list(given.channels)
    if given.is_single_scale and "neck_of_one_scale" in config:
        model.neck = config.neck_of_one_scale
        first, *others = model.neck if isinstance(model.neck, list) else [model.neck]
        first.update(
            {"in_channels": width, "stride": stride}
            if first.type == "SimpleFeaturePyramid"
            else {"embed_dim": width, "rescales": [stride / wanted for wanted in carried.STRIDES]}
        )
        for neck in others:  # an FPN on top
            neck.in_channels = channels
    elif "neck" in model:
        model.neck.in_channels = channels
    if "decode_head" in model:
        read = model.decode_head.in_index
        model.decode_head.in_channels = channels[read] if isinstance(read, int) else [channels[each] for each in read]
    if model.get("auxiliary_head"):
        model.auxiliary_head.in_channels = channels[model.auxiliary_head.in_index]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Learning rates that fall from layer to layer towards the image; `paramwise_cfg` has the arguments.

    `decay`, `by_stage` and `layers` are those of `carried.rate_factors`; `undecayed` says what has no weight decay:
    `norms` (and positions), or `vectors` (whatever has one dimension, and positions and tokens).
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Append a group for each learning rate and weight decay."""
        network: Any = module
        how = dict(self.paramwise_cfg)
        kind = how.pop("undecayed")
        factors = {f"backbone.{name}": factor for name, factor in carried.rate_factors(network.backbone, **how).items()}
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter, is_norm in _parameters(network):
            if not parameter.requires_grad:
                continue
            plain = is_norm if kind == "norms" else parameter.ndim == 1 or name.endswith(("_token", "_tokens"))
            plain = plain or "pos_embed" in name or "position" in name
            key = factors.get(name, 1.0), plain
            if key not in groups:
                decay = 0.0 if plain else self.base_wd
                groups[key] = {"params": [], "lr": self.base_lr * key[0], "weight_decay": decay}
                params.append(groups[key])
            groups[key]["params"].append(parameter)


def _parameters(network: nn.Module) -> list[tuple[str, nn.Parameter, bool]]:
    """Each parameter with its name, and whether a norm layer has it."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return [
        (f"{path}.{name}" if path else name, parameter, isinstance(module, norms))
        for path, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    ]
