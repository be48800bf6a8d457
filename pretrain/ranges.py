"""Ranges of numbers, stated in a field's annotation (`dim: Count`) and checked when the dataclass is made."""

import operator
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from cgh_bench.core.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers between the given limits."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def check(self, name: str, value: float | None) -> None:
        """Raise a UserError for a `value` outside; None stands for no value."""
        compare = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
        limits = {word: limit for word, limit in vars(self).items() if limit is not None}
        if value is not None and not all(compare[word](value, limit) for word, limit in limits.items()):
            accepted = " and ".join(f"{word.replace('_', ' ')} {limit:g}" for word, limit in limits.items())
            raise UserError(f"{name}={value} must be {accepted}")


Count = Annotated[int, Range(at_least=1)]
Whole = Annotated[int, Range(at_least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]


def check_ranges(config: Any) -> None:
    """Refuse the first field of the dataclass `config` that is outside the range in its annotation.

    Raises:
        UserError: names the field, its value and the range.
    """
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        for accepted in getattr(hint, "__metadata__", ()):
            if isinstance(accepted, Range):
                accepted.check(name, getattr(config, name))
