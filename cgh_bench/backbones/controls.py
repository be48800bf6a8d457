"""Controls without a network: what any backbone must beat. They have no weights, and are evaluated like the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture
from cgh_bench.core.errors import unknown

if TYPE_CHECKING:
    from cgh_bench.networks.base import Backbone

NAMES = ("pixels", "channels")


@dataclass(frozen=True)
class Control(Architecture):
    """`pixels`: the image averaged to 16 x 16; `channels`: mean and standard deviation of each channel."""

    IN_DETECTORS: ClassVar[str] = ""

    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`."""
        return NAMES

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return cls(name) if name in NAMES else None

    def build(self) -> "Backbone":
        """See `Architecture`."""
        from cgh_bench.networks.controls import Statistics

        return Statistics(self)

    def targets(self, feature: str) -> tuple[str, ...]:
        """There is one feature."""
        if feature not in (GLOBAL_FEATURE, self.name):
            raise unknown(f"feature of {self.name}", feature, [GLOBAL_FEATURE, self.name])
        return (self.name,)


FAMILIES = {"control": Control}
