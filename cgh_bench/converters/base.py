"""The base class of converters, and lookup by name; importing converters loads no torch."""

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
    """One conversion target. Its naming is total and injective, and its files can be read back bit for bit."""

    BESIDE: ClassVar[str] = ""
    """What `fragments` holds, for the documentation."""
    FAMILY: ClassVar[type[Architecture]] = Architecture  # type: ignore[type-abstract]
    """The only family that it takes networks of, if there is one."""

    name: str
    """The target's name on the command line."""
    suffixes: tuple[str, ...]
    """Accepted file extensions, the default first. Empty if the target is a folder."""

    @property
    def is_folder(self) -> bool:
        """Whether it writes a folder instead of a file."""
        return not self.suffixes

    def rename(self, key: str, architecture: Architecture) -> str:
        """The target's name for our `key`; here the same."""
        return key

    def takes(self, family: type[Architecture]) -> bool:
        """Whether it takes networks of that family, for lists; `require_supported` says which of them."""
        return issubclass(family, self.FAMILY)

    @abstractmethod
    def require_supported(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint that the target cannot build or describe.

        Raises:
            UserError: says why, and what is accepted.
        """

    @abstractmethod
    def save(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the weights of a supported checkpoint to `path`, which must not exist, atomically."""

    def read(self, path: Path) -> Checkpoint:
        """Read weights of the target's layout, ours or its own; here by the reader of that name.

        Raises:
            UserError: not readable, or other tensors than the description in it says.
        """
        from cgh_bench.reading import recognition

        return recognition.read(path, source=self.name)

    def fragments(self, checkpoint: Checkpoint, path: Path) -> Mapping[str, str]:
        """The configuration for the weights at `path`, as text by file name, to be written beside them."""
        return {}

    def require_installed(self) -> None:  # noqa: B027 (nothing by default)
        """Check that the packages needed for verification are installed.

        Raises:
            UserError: what is missing, and how to install it.
        """

    @abstractmethod
    def outputs(self, path: Path, pixels: Tensor) -> Outputs:
        """The outputs of the target's own network, built from the files, for RGB `pixels` (B, 3, H, W), uint8."""

    def write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Write the weights.

        Raises:
            UserError: the target does not support this checkpoint.
        """
        self.require_supported(checkpoint)
        self.save(checkpoint, path)


def find(name: str) -> Converter:
    """The converter with that name.

    Raises:
        UserError: unknown name; the nearest names are suggested.
    """
    return registry.find("cgh_bench.converters", "CONVERTERS", name, "target")
