"""What a converter is, and finding one by its name; importing converters loads no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.backbones.base import Architecture
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.converters.parity import Outputs
from cgh_bench.core import registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Converter(ABC):
    """One target. Its names are total and injective, and what it writes is read back bit for bit."""

    BESIDE: ClassVar[str] = ""
    """What `fragments` holds, for the documentation."""
    FAMILY: ClassVar[type[Architecture]] = Architecture  # type: ignore[type-abstract]
    """The only family that it takes networks of, if there is one."""

    name: str
    """What the target is called on the command line."""
    suffixes: tuple[str, ...]
    """File endings that it writes; the first is the usual one. Empty for a target that is a folder."""

    @property
    def is_folder(self) -> bool:
        """Whether it writes a folder, not a file."""
        return not self.suffixes

    def rename(self, key: str, architecture: Architecture) -> str:
        """The target's name for our `key`; here the same."""
        return key

    def takes(self, family: type[Architecture]) -> bool:
        """Whether it takes networks of that family, for lists; `require_supported` says which of them."""
        return issubclass(family, self.FAMILY)

    @abstractmethod
    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse what the target cannot build or cannot say.

        Raises:
            UserError: names it, and what is accepted.
        """

    @abstractmethod
    def save(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the weights of a supported checkpoint to `path`, which does not exist, whole or not at all."""

    def read(self, path: Path) -> Checkpoint:
        """Read weights of the target's layout, ours or its own; here by the reader of that name.

        Raises:
            UserError: not readable, or other tensors than the description in it says.
        """
        from cgh_bench.reading import recognition

        return recognition.read(path, source=self.name)

    def fragments(self, checkpoint: Checkpoint, path: Path) -> Mapping[str, str]:
        """The configuration that the weights at `path` imply, text by file name, to be written beside them."""
        return {}

    def require_installed(self) -> None:  # noqa: B027 (nothing by default)
        """Refuse a proof that the target's own packages, which are absent, would have to give.

        Raises:
            UserError: what is absent, and how to install it.
        """

    @abstractmethod
    def outputs(self, path: Path, pixels: Tensor) -> Outputs:
        """What the target's own network, built from the files, makes of RGB `pixels` (B, 3, H, W), uint8."""

    def write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the weights.

        Raises:
            UserError: the target cannot hold this checkpoint.
        """
        self.require_supported(checkpoint)
        self.save(checkpoint, path)


def find(name: str) -> Converter:
    """The converter to the target of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    converter: Converter = registry.find("cgh_bench.converters", "CONVERTERS", name, "target")
    return converter
