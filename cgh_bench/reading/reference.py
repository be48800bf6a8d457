"""Proof by the origin itself: what its own network computed, recorded by `reference_script`, against what ours does.

Layers are paired by their weights, whatever each side calls them. Where an output differs, known causes are tried in
turn, so that the error says what to set.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgh_bench.backbones.base import ACTIVATIONS, GLOBAL_FEATURE, Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.saved import load_arrays
from cgh_bench.data.preprocessing import PREPROCESSINGS, Preprocessing
from cgh_bench.reading import reference_script
from cgh_bench.reading.evidence import adjusted

TOLERANCE = 1e-4
"""Largest difference of an output relative to its largest value, float32."""
_SAME_WEIGHTS = 1e-5
_MOST_CAUSES = 5
Others = Callable[[], Iterable[tuple[str, Checkpoint]]]
"""Other networks that the file could have meant, with the option that takes each (`--branch teacher`)."""


@dataclass(frozen=True)
class Reference:
    """What a model computed."""

    path: str
    sha256: str
    description: Mapping[str, Any]
    input: Tensor
    """(2, 3, H, W), what the model was given."""
    layers: Sequence[Mapping[str, Any]] = field(repr=False)
    vectors: Sequence[Mapping[str, Any]] = field(repr=False)
    """What could be the global feature: vectors that it returned or gave to a dense layer."""
    known: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Sums over weights that were compared with it (see `reference_script.observe`); what is tried shares them."""

    @property
    def pixels(self) -> Tensor:
        """The images (2, 3, H, W), uint8."""
        return reference_script.probe_images(*self.description["size"])


@dataclass(frozen=True)
class Agreement:
    """How far a checkpoint agrees with a reference."""

    stages: tuple[Mapping[str, Any], ...]
    """Name here and there, shape and relative difference of each pair, in the reference's order."""
    unpaired: int
    """Layers of ours whose weights no layer there has."""
    feature: str
    """Which of our features the model gives, or empty where it gives none of that width."""

    @property
    def first(self) -> int:
        """The number of leading stages that agree."""
        return next((n for n, each in enumerate(self.stages) if not each["relative"] <= TOLERANCE), len(self.stages))

    @property
    def is_whole(self) -> bool:
        """Whether every layer has a counterpart that puts out the same."""
        return bool(self.stages) and self.first == len(self.stages)


def read(path: Path) -> Reference:
    """The reference in the file that `reference_script` wrote.

    Raises:
        UserError: it is not such a file, or its images are others than this version makes.
    """
    try:
        content = path.read_bytes()
        return _read(content, str(path))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); expected what `cgh-bench reference script` writes"
        ) from None


def record(model: Any, prepare: Callable[[Any], Tensor] | None = None, size: tuple[int, int] = (224, 224)) -> Reference:
    """The reference of a model in memory."""
    file = io.BytesIO()
    reference_script.record(model, file, prepare, size)
    return _read(file.getvalue(), "memory")


def _read(content: bytes, path: str) -> Reference:
    try:
        arrays = load_arrays(io.BytesIO(content))
        description = json.loads(str(arrays["description"]))
        if description.get("format") != reference_script.FORMAT:
            raise ValueError(f"its format is {description.get('format')!r}")
        layers, vectors = (
            [{**entry, "values": arrays[f"{kind}/{number}"]} for number, entry in enumerate(description[kind])]
            for kind in ("layers", "vectors")
        )
        digest = hashlib.sha256(content).hexdigest()
        found = Reference(path, digest, description, torch.from_numpy(arrays["input"]), layers, vectors)
        same = int(found.pixels.long().sum()) == description["checksum"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a valid reference ({error}); write one with the script of `cgh-bench reference script`"
        ) from None
    if not same:
        raise UserError(f"{path} was recorded on other images; record it again with `cgh-bench reference script`")
    return found


def certified(
    checkpoint: Checkpoint, reference: Reference, others: Others = tuple
) -> tuple[Checkpoint, dict[str, Any]]:
    """`checkpoint` with an origin that says so, and what was compared, if it computes what the reference holds.

    Raises:
        CheckFailed: it does not; the message says what to set, where the cause is a known one.
    """
    advice = [*_of_images(checkpoint, reference)]
    agreement = compare(checkpoint, reference)
    if not agreement.is_whole:
        advice += _of_network(checkpoint, reference, agreement, others)
    elif agreement.feature not in ("", GLOBAL_FEATURE):
        advice.append(_of_pooling(checkpoint, agreement.feature))
    if advice:
        raise CheckFailed(f"{checkpoint.name} differs from the model of {reference.path}: {'; '.join(advice)}")
    proof = {
        "sha256": reference.sha256,
        "model": reference.description["model"],
        "torch": reference.description["torch"],
        "preprocessing": "compared" if reference.description["prepared"] else "not compared",
        "feature": "compared" if agreement.feature else "not compared",
        "tolerance": TOLERANCE,
        "stages": list(agreement.stages),
    }
    return replace(checkpoint, origin=replace(checkpoint.origin, reference=reference.sha256)), proof


def compare(checkpoint: Checkpoint, reference: Reference) -> Agreement:
    """Every layer of `checkpoint` against the layer of the reference with the same weights, on the same input.

    Raises:
        UserError: the network does not take images of that size.
    """
    backbone = checkpoint.backbone(copy=False)
    architecture = checkpoint.architecture
    features = {name: parts for name in _features(architecture) if (parts := _targets(architecture, name))}
    found: list[Tensor] = []
    ours = reference_script.observe(
        backbone,
        lambda: found.extend(backbone.pooled_all(reference.input, list(features.values()))),
        reference.known,
    )
    pairs = _paired(ours["layers"], reference.layers)
    stages = tuple(
        {"stage": theirs["name"], "ours": mine["name"], "shape": theirs["shape"], "relative": _relative(mine, theirs)}
        for mine, theirs in pairs
    )
    given = {name: reference_script.sample(tensor) for name, tensor in zip(features, found, strict=True)}
    return Agreement(stages, len(ours["layers"]) - len(pairs), _same_feature(given, reference))


def _same_feature(given: Mapping[str, Mapping[str, Any]], reference: Reference) -> str:
    """The name of our feature that the model gives; `?` if it gives a vector of that width that is none of ours."""
    wide = [each for each in reference.vectors if each["shape"] == given[GLOBAL_FEATURE]["shape"]]
    for name, ours in given.items():
        if any(_relative(ours, theirs) <= TOLERANCE for theirs in wide):
            return name
    return "?" if any(each["name"].startswith("output") for each in wide) else ""


def _features(architecture: Architecture) -> list[str]:
    """The features that one pass gives; one of an inner block would take the last norm again."""
    maps = [name for name in architecture.skeleton.stages if not name.startswith("block")]
    return [GLOBAL_FEATURE, "head", "cls", "patch_mean", *maps]


def _targets(architecture: Architecture, name: str) -> tuple[str, ...]:
    try:
        return architecture.targets(name)
    except UserError:
        return ()


def _paired(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Layers with equal weights, in their order; of several equal ones the first with the first."""
    left = list(ours)
    pairs = []
    for layer in theirs:
        for place, mine in enumerate(left):
            if _same_weights(mine["weights"], layer["weights"]):
                pairs.append((left.pop(place), layer))
                break
    return pairs


def _same_weights(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    common = mine.keys() & theirs.keys()
    return "weight" in common and all(
        mine[name][0] == theirs[name][0] and np.allclose(mine[name][1:], theirs[name][1:], rtol=_SAME_WEIGHTS)
        for name in common
    )


def _relative(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """The largest difference over the largest value; infinite where the shapes differ."""
    if math.prod(mine["shape"]) != math.prod(theirs["shape"]):
        return math.inf
    difference = float(np.abs(mine["values"] - theirs["values"]).max())
    return difference / max(float(theirs["largest"]), 1e-30)


# What to set


def _of_images(checkpoint: Checkpoint, reference: Reference) -> Iterator[str]:
    """What to set for the input to be the reference's."""
    if not reference.description["prepared"]:
        return
    ours = checkpoint.preprocessing(reference.pixels.float() / 255)
    if _close(ours, reference.input):
        return
    fitted = _fitted(reference.pixels.double(), reference.input.double())
    if fitted is None:
        yield "your images are prepared by more than numbers per channel; leave resize and crop out of prepare"
        return
    pixels = reference.pixels.float() / 255
    known = [name for name, each in PREPROCESSINGS.items() if _close(each(pixels), reference.input)]
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (fitted.mean, fitted.std))
    values = {
        "channel_order": fitted.channel_order,
        "input_range": f"{fitted.input_range:g}",
        "mean": mean,
        "std": std,
    }
    settings = [f"preprocessing={known[0]}"] if known else [f"{name}={value}" for name, value in values.items()]
    yield f"your images are prepared otherwise: add {' '.join(f'--set {setting}' for setting in settings)}"


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


def _fitted(pixels: Tensor, given: Tensor) -> Preprocessing | None:
    """The preprocessing that turns `pixels` into `given`, if there is one."""
    channels, scales, offsets = [], [], []
    for out in range(3):
        y = given[:, out].flatten()
        for channel in range(3):
            x = pixels[:, channel].flatten()
            scale = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
            offset = float(y.mean() - scale * x.mean())
            if scale > 0 and float((scale * x + offset - y).abs().max()) <= TOLERANCE * float(y.abs().max()):
                channels.append(channel)
                scales.append(scale)
                offsets.append(offset)
                break
    if channels not in ([0, 1, 2], [2, 1, 0]):
        return None
    white = 255.0 if all(math.isclose(scale, 1.0, rel_tol=1e-4) for scale in scales) else 1.0
    std = tuple(white / 255 / scale for scale in scales)
    mean = tuple(-offset * s for offset, s in zip(offsets, std, strict=True))
    return Preprocessing("RGB" if channels == [0, 1, 2] else "BGR", white, mean, std)  # type: ignore[arg-type]


def _of_network(checkpoint: Checkpoint, reference: Reference, agreement: Agreement, others: Others) -> list[str]:
    """What to set for every layer to agree, one cause after the other; or where the first difference is."""
    if agreement.unpaired > len(agreement.stages):
        for option, other in others():
            if compare(other, reference).unpaired == 0:
                return [f"your model is another network of the file: add {option}"]
        return [f"your model has other weights: {agreement.unpaired} layers of the file are not in it"]
    tried, advice = checkpoint, []
    for _ in range(_MOST_CAUSES):
        best = ("", tried, agreement)
        for attempt in _tries(tried, reference):
            best = attempt if attempt[2].first > best[2].first else best
            if best[2].is_whole:
                break
        if best[1] is tried:
            break
        text, tried, agreement = best
        advice.append(text)
        if agreement.is_whole:
            if agreement.feature not in ("", GLOBAL_FEATURE):
                advice.append(_of_pooling(tried, agreement.feature))
            return advice
    at = agreement.stages[agreement.first]
    return [*advice, f"{at['stage']} ({at['ours']} here) is the first layer that differs, by {at['relative']:.1e}"]


def _tries(checkpoint: Checkpoint, reference: Reference) -> Iterator[tuple[str, Checkpoint, Agreement]]:
    for text, variant in _variants(checkpoint):
        try:
            yield text, variant, compare(variant, reference)
        except (UserError, RuntimeError):
            continue  # it does not take such images


def _variants(checkpoint: Checkpoint) -> Iterator[tuple[str, Checkpoint]]:
    """The checkpoint with one known cause, and what to set for it."""
    architecture = checkpoint.architecture
    for name, value, words in _causes(architecture):
        settings = [f"{name}={_written(value)}"]
        for more in ([], ["dilate_first=true"]) if name == "dilation" else ([],):
            try:
                variant = adjusted(checkpoint, settings + more)
            except UserError:
                continue
            if variant.architecture != architecture:
                told = " ".join(f"--set {setting}" for setting in settings + more)
                yield f"your model's {words}: add {told}", variant
    if isinstance(architecture, ResNet):
        for kind, words in (("blur", "blurs before it strides"), ("aa", "averages before it strides")):
            other = Timm.named(f"resnet{kind}{architecture.depth}")
            if other and dict(other.shapes) == dict(architecture.shapes):
                yield f"your model {words}: add --arch {other.name}", replace(checkpoint, architecture=other)


def _causes(architecture: Architecture) -> Iterator[tuple[str, Any, str]]:
    for name in architecture.untold:
        values, words = _CAUSES.get(name, ((), ""))
        yield from ((name, value, words.format(_written(value))) for value in values)


_CAUSES: Mapping[str, tuple[Iterable[Any], str]] = {
    "stem.padding": (range(4), "stem pads by {}"),
    "stem.stride": ((1, 2), "stem strides by {}"),
    "stem.pool": ((True, False), "stem pools otherwise"),
    "stride_in_1x1": ((True, False), "bottlenecks stride elsewhere"),
    "dilation": (((1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 2), (1, 1, 2, 4)), "stages dilate by {}"),
    "dilate_first": ((True, False), "dilated stages begin otherwise"),
    "heads": ((3, 6, 12, 16, 8, 4, 24, 2, 1), "attention has {} heads"),
    "norm_eps": ((1e-3, 1e-5, 1e-6, 1e-12, 1e-4), "norms have epsilon {}"),
    "positions": (("timm", "dino", "transformers"), "positions are resampled as {} does"),
    "activation": (ACTIVATIONS, "activation is {}"),
}
"""Values of properties that known libraries give them; words for each."""


def _of_pooling(checkpoint: Checkpoint, feature: str) -> str:
    if feature == "?":
        return "your model's output is none of the known features; wrap the model (cgh_bench.wrap) to evaluate that"
    if "pooling" in checkpoint.architecture.untold and feature in ("cls", "patch_mean", "head"):
        return f"your model's global feature is {feature}: add --set pooling={feature}"
    return f"your model's output is {feature}: evaluate with --set feature={feature}"


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
