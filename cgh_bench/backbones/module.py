"""Any module in memory as a backbone: whatever turns images into vectors or maps. It says what it is, and no more."""

import copy
import hashlib
import inspect
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, Stage, chosen
from cgh_bench.backbones.wrapped import Wrapped
from cgh_bench.core.errors import UserError

PART = "features"
"""The only part that a module has: its output."""
Pick = str | Callable[[Any], Tensor] | None
"""How features are taken: from the output, by a key or a function; or as the output of the submodule of that name."""


@dataclass(frozen=True)
class Module(Architecture):
    """What a module in memory is, as far as can be told; it exists in this process only and cannot be written."""

    GENERIC: ClassVar[bool] = True

    name: str
    """Its class, with the module that defines it."""
    features: str
    """How features are taken from it."""
    content: str
    """Sixteen hex digits of all that its weights do not say: classes of submodules, plain attributes, sources."""
    size: tuple[int, int]
    """Height and width of the images that it was tried with."""
    channels: int
    stride: int
    """Pixels per position of its map; 0 where it gives a vector."""
    network: Any = field(repr=False, compare=False)
    """A copy of the module on the CPU, in eval mode, with `pick`."""

    @classmethod
    def names(cls) -> Iterable[str]:
        """None: a module is handed over."""
        return ()

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return None

    def build(self) -> "ModuleBackbone":
        """A copy of the module, with its own weights."""
        return ModuleBackbone(self, copy.deepcopy(self.network))

    @property
    def skeleton(self) -> "ModuleBackbone":
        """The copy that is kept: it must not be trained."""
        return ModuleBackbone(self, self.network)

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Architecture`."""
        return self.size

    def targets(self, feature: str) -> tuple[str, ...]:
        """`layer4` (the global feature) and `features` are the same: what the module gives."""
        return chosen(f"feature of {self.name}", PART if feature == GLOBAL_FEATURE else feature, (PART,))

    def with_weights(self, weights: Mapping[str, Tensor], copy: bool = True) -> "ModuleBackbone":
        """See `Architecture`; without `copy`, the module that is kept."""
        if not copy:
            return self.skeleton
        backbone = self.build()
        backbone.load_state_dict(weights)
        return backbone.eval()


class ModuleBackbone(Wrapped):
    """A module in memory behind the contract: one feature, and one map if the module gives maps."""

    def __init__(self, architecture: Module, network: "Picked") -> None:
        super().__init__()
        self.architecture, self.network = architecture, network
        self.stages = {PART: Stage(architecture.channels, architecture.stride)} if architecture.stride else {}
        self.eval()

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return int(self.architecture.channels)  # type: ignore[attr-defined]

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone.global_and_pyramid`; of a module that gives vectors the pyramid is empty."""
        found = self.network(images)
        return (found.mean(dim=(2, 3)), {PART: found}) if found.ndim == 4 else (found, {})

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


def from_module(model: Callable[..., Any], pick: Pick, size: tuple[int, int]) -> Module:
    """`model` as an architecture, tried on two images of noise.

    A copy is made; mode, device and gradients of `model` stay as they are.

    Args:
        model: an `nn.Module`, a method of one, or any callable of images (B, 3, H, W), preprocessed.
        pick: see `Pick`.
        size: height and width of the images to try.

    Raises:
        UserError: it cannot be copied or fails, or gives neither (B, D) nor (B, C, h, w): what `features` must do.
    """
    owner, name = owner_of(model), _name(model)
    try:
        network = Picked(copy.deepcopy(model), pick)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be copied ({' '.join(str(error).split())}), and it must not be changed"
        ) from None
    network.to("cpu", torch.float32).eval().zero_grad()
    channels, stride = _shape(network, name, size)
    how = getattr(pick, "__qualname__", str(pick or "output"))
    return Module(name, how, _content(owner, model, pick), size, channels, stride, network)


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


def _name(model: Callable[..., Any]) -> str:
    kind: Any = type(model) if isinstance(model, nn.Module) else model
    owner = f"{type(model.__self__).__qualname__}." if isinstance(model, types.MethodType) else ""
    return f"{kind.__module__}.{owner}{getattr(kind, '__name__', type(kind).__name__)}"


def _shape(network: Picked, name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Channels, and stride of a map (0 of a vector), found by trying."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = network(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} fails on images of {size[0]}x{size[1]} with features={network.pick!r}: {reason}"
        ) from None
    if not isinstance(found, Tensor):
        raise UserError(f"{name} returns {_described(found)}; {_advice(found)}")
    if found.ndim == 4 and found.shape[1] == found.shape[2] != found.shape[3]:
        raise UserError(
            f"{name} returns maps {tuple(found.shape)} with channels last; expected (B, C, h, w): "
            "features=lambda maps: maps.permute(0, 3, 1, 2)"
        )
    if found.ndim not in (2, 4) or len(found) != 2 or not found.is_floating_point():
        raise UserError(f"{name} returns a {found.dtype} of {tuple(found.shape)} for two images; {_advice(found)}")
    if not torch.isfinite(found).all():
        raise UserError(f"{name} returns NaN or infinity for images of noise; its weights or its features= are broken")
    _require_no_scores(network.model, name, found) if network.pick is None and not network.method else None
    return found.shape[1], max(1, round(size[1] / found.shape[3])) if found.ndim == 4 else 0


def _require_no_scores(model: Any, name: str, found: Tensor) -> None:
    """Refuse the class scores of the libraries whose classifiers have known names."""
    for head in ("fc", "classifier", "head", "heads"):
        layers = [m for m in getattr(model, head, nn.Identity()).modules() if isinstance(m, nn.Linear)]
        if name.startswith(("torchvision.", "timm.")) and layers and layers[-1].out_features == found.shape[1]:
            how = "build it with num_classes=0" if name.startswith("timm.") else "say which submodule's output to take"
            raise UserError(
                f"{name} returns the scores of its classifier {head}, not features; {how}, or pass features="
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
    raise UserError(f"features={key!r} is neither a submodule nor part of the output, which is {_described(output)}")


def _content(owner: nn.Module | None, model: Callable[..., Any], pick: Pick) -> str:
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


FAMILIES = {"module": Module}
