"""A module in memory behind the contract, and what can be told of it."""

from __future__ import annotations

import hashlib
import inspect
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgh_bench.core.errors import UserError
from cgh_bench.networks.base import Stage
from cgh_bench.networks.wrapped import Wrapped

if TYPE_CHECKING:
    from cgh_bench.backbones.module import Module

Pick = str | Callable[[Any], Tensor] | None
"""How features are taken: from the output, by a key or a function; or as the output of the submodule of that name."""

_ALIKE = 0.05
"""How far an image's features may depend on its batch, relative to the largest: half precision rounds."""


class ModuleBackbone(Wrapped):
    """A module in memory behind the contract: one feature, and one map if the module gives maps."""

    def __init__(self, architecture: Module, network: Picked) -> None:
        super().__init__()
        self.architecture, self.network = architecture, network
        parts = architecture.global_targets if architecture.stride else ()
        self.stages = {part: Stage(architecture.channels, architecture.stride) for part in parts}
        self.eval()

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return int(self.architecture.channels)  # type: ignore[attr-defined]

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone.global_and_pyramid`; of a module that gives vectors the pyramid is empty."""
        found = self.network(images)
        maps = dict.fromkeys(self.stages, found)
        return (found.mean(dim=(2, 3)) if maps else found), maps

    def pooled_all(self, images: Tensor, targets: Any) -> list[Tensor]:
        """See `Backbone.pooled_all`."""
        return [self.global_and_pyramid(images)[0]] * len(targets)


class Picked(nn.Module):
    """A module with what is taken of its output."""

    def __init__(self, model: Callable[..., Any], pick: Pick) -> None:
        super().__init__()
        owner = owner_of(model)
        self.model = owner if owner is not None else model
        self.method = "" if owner in (None, model) else model.__name__
        self.pick = pick

    def forward(self, images: Tensor) -> Any:
        """The features of `images` (B, 3, H, W): (B, D), or (B, C, h, w)."""
        if not isinstance(self.pick, str):
            output = self._output(images)
            return output if self.pick is None else self.pick(output)
        submodule = dict(self.model.named_modules()).get(self.pick) if isinstance(self.model, nn.Module) else None
        if submodule is None:
            return _entry(self._output(images), self.pick)
        found: list[Any] = []
        handle = submodule.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            self._output(images)
        finally:
            handle.remove()
        if not found:
            raise UserError(f"features={self.pick!r}: the model does not call that submodule")
        return found[-1]

    def _output(self, images: Tensor) -> Any:
        return getattr(self.model, self.method)(images) if self.method else self.model(images)


def owner_of(model: Callable[..., Any]) -> nn.Module | None:
    """The `nn.Module` that `model` is, or is a method of."""
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


def source_of(model: Callable[..., Any]) -> str:
    """The file that defines `model`, or the class of it; empty where it has none (a notebook's cell, C++)."""
    owner = owner_of(model)
    try:
        return inspect.getsourcefile(type(owner) if owner is not None else inspect.unwrap(model)) or ""
    except TypeError:
        return ""


def name_of(model: Callable[..., Any]) -> str:
    """The class or function that `model` is, with the module that defines it."""
    kind: Any = type(model) if isinstance(model, nn.Module) else model
    owner = f"{type(model.__self__).__qualname__}." if isinstance(model, types.MethodType) else ""
    return f"{kind.__module__}.{owner}{getattr(kind, '__name__', type(kind).__name__)}"


def shape_of(network: Picked, name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Channels, and stride of a map (0 of a vector), found by trying."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
            found, alone = network(pixels), network(pixels[:1])
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} fails on images of {size[0]}x{size[1]} with features={network.pick!r}: {reason}"
        ) from None
    if not isinstance(found, Tensor):
        raise UserError(f"{name} returns {_described(found)}; {_advice(found)}")
    if found.ndim == 4 and _skew(found.shape[1:3], size) < _skew(found.shape[2:4], size):
        raise UserError(
            f"{name} returns maps {tuple(found.shape)} with channels last; expected (B, C, h, w): "
            "features=lambda maps: maps.permute(0, 3, 1, 2)"
        )
    if found.ndim not in (2, 4) or len(found) != 2 or not found.is_floating_point():
        raise UserError(f"{name} returns a {found.dtype} of {tuple(found.shape)} for two images; {_advice(found)}")
    if not torch.isfinite(found).all():
        raise UserError(f"{name} returns NaN or infinity for random images; its weights or features= are broken")
    if not torch.allclose(found[:1], alone, rtol=0, atol=_ALIKE * float(found.abs().max())):
        raise UserError(
            f"{name} gives an image other features in a batch than alone; call .eval() on the network that it uses"
        )
    _require_no_scores(network.model, name, found) if network.pick is None and not network.method else None
    return found.shape[1], max(1, round(size[1] / found.shape[3])) if found.ndim == 4 else 0


def _skew(sides: Sequence[int], size: tuple[int, int]) -> int:
    """How far `sides` are from being height and width of a map of images of that size."""
    return abs(sides[0] * size[1] - sides[1] * size[0])


def _require_no_scores(model: Any, name: str, found: Tensor) -> None:
    """Refuse the class scores of the libraries whose classifiers have known names."""
    for head in ("fc", "classifier", "head", "heads"):
        layers = [m for m in getattr(model, head, nn.Identity()).modules() if isinstance(m, nn.Linear)]
        if name.startswith(("torchvision.", "timm.")) and layers and layers[-1].out_features == found.shape[1]:
            how = "build it with num_classes=0" if name.startswith("timm.") else "say which submodule's output to take"
            raise UserError(
                f"{name} returns the logits of its classifier {head}, not features; {how}, or pass features="
            )


def _described(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a {type(found).__name__} with {', '.join(map(str, found))}"
    return f"a {type(found).__name__}" + (f" of {len(found)}" if isinstance(found, tuple | list) else "")


def _advice(found: Any) -> str:
    example = "lambda output: output[0]"
    if isinstance(found, Mapping):
        example = repr(next(iter(found), "name"))
    elif isinstance(found, Tensor) and found.ndim == 3:
        example = "lambda tokens: tokens[:, 0] for the class token, or tokens.mean(1)"
    return f"features= must take (B, D) or maps (B, C, h, w) from it, say features={example}"


def _entry(output: Any, key: str) -> Any:
    """`output[key]`, or its attribute of that name."""
    if isinstance(output, Mapping) and key in output:
        return output[key]
    if not isinstance(output, Tensor) and hasattr(output, key):
        return getattr(output, key)
    raise UserError(f"features={key!r} is neither a submodule nor a key of the output ({_described(output)})")


def content_of(owner: nn.Module | None, model: Callable[..., Any], pick: Pick) -> str:
    """See `Module.content`. What is not a module cannot be told apart from another: it is like none before."""
    parts = [_code(pick), getattr(model, "__name__", "")]
    parts += list(_configuration(owner)) if owner is not None else [uuid.uuid4().hex]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _code(function: Any) -> str:
    """A function's source with the values that it closes over; one that cannot be read is like none before."""
    if function is None or isinstance(function, str):
        return str(function)
    closed_over = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    try:
        return f"{inspect.getsource(function)} {closed_over if _is_plain(closed_over) else uuid.uuid4().hex}"
    except (OSError, TypeError):
        return uuid.uuid4().hex


def _configuration(owner: nn.Module) -> Iterator[str]:
    """Class and plain attributes of every submodule, and the buffers that are in no state dict."""
    saved = set(owner.state_dict())
    for name, module in owner.named_modules():
        plain = {key: value for key, value in vars(module).items() if key != "training" and _is_plain(value)}
        yield f"{name} {type(module).__module__}.{type(module).__qualname__} {sorted(plain.items())}"
    for name, buffer in owner.named_buffers():
        if name not in saved:
            yield f"{name} {hashlib.sha256(buffer.detach().cpu().contiguous().view(-1).numpy().tobytes()).hexdigest()}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
