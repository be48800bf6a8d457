"""The names that checkpoints go by: one grammar, read here and nowhere else."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench.core.errors import UserError

FORMS = {
    "PATH": "a file of any known origin, or a Hugging Face folder",
    "timm/NAME.TAG[@REVISION]": "weights published by timm",
    "torchvision/NAME.WEIGHTS": "weights published by torchvision",
    "hf:ORG/NAME[@REVISION]": "a repository of the Hugging Face Hub",
    "hub:OWNER/REPO[:REF]/ENTRY": "a torch.hub entry point; needs --trust-code, because its code runs",
    "https://ADDRESS#sha256=HEX": "a file at a URL, with its checksum",
    "random:ARCH[:SEED]": "a control: untrained weights",
    "control:pixels": "a control without a network: raw pixels (control:channels: mean and std of each channel)",
}
"""Every form of a name, and what it leads to."""


@dataclass(frozen=True)
class Timm:
    """Weights that timm publishes: `timm/convnext_tiny.fb_in22k`."""

    name: str
    """Architecture and tag."""
    revision: str = ""
    """A commit, branch or tag of the repository on the Hugging Face Hub; empty for its main branch."""


@dataclass(frozen=True)
class Torchvision:
    """Weights that torchvision publishes: `torchvision/resnet50.IMAGENET1K_V2`."""

    arch: str
    weights: str


@dataclass(frozen=True)
class HuggingFace:
    """A repository of the Hugging Face Hub: `hf:facebook/dinov2-small@COMMIT`."""

    repo: str
    revision: str = ""
    """A commit, branch or tag; empty for the main branch."""


@dataclass(frozen=True)
class TorchHub:
    """An entry of a GitHub repository's hubconf.py: `hub:facebookresearch/dino:main/dino_resnet50`."""

    repo: str
    entry: str
    ref: str = ""
    """A branch, tag or commit; empty for the default branch."""


@dataclass(frozen=True)
class Address:
    """A file at an address, with its hash: `https://example.org/r50.pth#sha256=…`."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Control:
    """Untrained weights, `random:resnet50:1`, or statistics of the image, `control:pixels`."""

    arch: str
    seed: int = 0


Name = Timm | Torchvision | HuggingFace | TorchHub | Address | Control | Path

_WORD = r"[\w.-]+"
_FILES = (".pth", ".pt", ".tar", ".torch", ".safetensors", ".bin", ".pkl", ".ckpt", ".npz")
_GRAMMAR = (
    (r"timm/", rf"timm/(?P<name>{_WORD})(?:@(?P<revision>{_WORD}))?", Timm, "timm/convnext_tiny.fb_in22k"),
    (
        r"torchvision/",
        r"torchvision/(?P<arch>\w+)\.(?P<weights>\w+)",
        Torchvision,
        "torchvision/resnet50.IMAGENET1K_V2",
    ),
    (
        r"hf:",
        rf"hf:(?://)?(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>{_WORD}))?",
        HuggingFace,
        "hf:facebook/dinov2-small",
    ),
    (
        r"hub:",
        rf"hub:(?P<repo>{_WORD}/{_WORD})(?::(?P<ref>[\w./-]+))?/(?P<entry>\w+)",
        TorchHub,
        "hub:facebookresearch/dino:main/dino_resnet50",
    ),
    (
        r"https?:",
        r"(?P<url>https?://[^#\s]+)#sha256=(?P<sha256>[0-9a-f]{64})",
        Address,
        "https://example.org/weights.pth#sha256= and 64 hexadecimal digits, as sha256sum prints them",
    ),
    (r"random:", rf"random:(?P<arch>{_WORD})(?::(?P<seed>\d+))?", Control, "random:resnet50:1"),
    (r"control:", r"control:(?P<arch>pixels|channels)", Control, "control:pixels or control:channels"),
)


def parse(text: str) -> Name:
    """What `text` names; it is looked for nowhere. Whatever has none of the prefixes is a path.

    Raises:
        UserError: it begins like a name and is not of that form.
    """
    for prefix, pattern, kind, example in _GRAMMAR:
        if not re.match(prefix, text):
            continue
        found = re.fullmatch(pattern, text)
        if not found:
            raise UserError(f"{text} is not a valid checkpoint name; example: {example}")
        given: dict[str, Any] = {field: value for field, value in found.groupdict().items() if value is not None}
        return Control(given["arch"], int(given.get("seed", 0))) if kind is Control else kind(**given)
    return Path(text).expanduser()


def absent(text: str) -> UserError:
    """The error for a path where nothing is: a typing error, or a name without its prefix."""
    path = Path(text).expanduser()
    if path.is_symlink():
        return UserError(f"{text} is a link to {path.readlink()}, which does not exist")
    if len(path.parts) > 1 and path.parent.is_dir():
        near = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=3)
        close = f"; did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""
        return UserError(f"{text}: {path.parent} has no such file{close}")
    if found := re.fullmatch(rf"(?:https://huggingface\.co/)?({_WORD}/{_WORD}(?:@{_WORD})?)", text):
        return UserError(f"{text}: no such file; a repository of the Hugging Face Hub is named hf:{found[1]}")
    if re.fullmatch(_WORD, text) and Path(text).suffix not in _FILES and (nearest := _nearest(text)):
        return UserError(f"{text}: no such file; did you mean {' or '.join(nearest)}?")
    return UserError(f"{text}: no such file; a checkpoint is given as {', '.join(FORMS)}")


def stem(path: Path) -> str:
    """The name of a file without what says its format: `resnet18.a1_in1k`, of `resnet18.a1_in1k.pth.tar`."""
    name = path.name
    while (suffix := Path(name).suffix) in _FILES:
        name = name.removesuffix(suffix)
    return name


def _nearest(text: str) -> list[str]:
    """The three known names most like `text`, which has no prefix."""
    bare = {name.partition(":")[2] or name.partition("/")[2]: name for name in _known()}
    same = [name for key, name in bare.items() if text in (key, key.partition(".")[0])]
    of_each_kind = {re.match(r"\w+", name)[0]: name for name in reversed(same)}  # type: ignore[index]
    close = difflib.get_close_matches(text, bare, n=3, cutoff=0.6)
    return list(dict.fromkeys([*of_each_kind.values(), *(bare[key] for key in close)]))[:3]


def _known() -> Iterator[str]:
    """The names without a network's help, those of untrained networks last."""
    import timm
    import torchvision.models

    from cgh_bench import backbones

    for arch in torchvision.models.list_models(module=torchvision.models):
        yield from (f"torchvision/{arch}.{w.name}" for w in torchvision.models.get_model_weights(arch))
    yield from (f"timm/{name}" for name in timm.list_pretrained())
    yield from (f"random:{arch}" for arch in backbones.names())
