"""What a variant reached, and which of them closes the difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from cgh_bench.explain.axes import Variant


@dataclass(frozen=True)
class Trial:
    """What a variant reached, in the unit of the metric."""

    variant: Variant
    number: float
    remains: float
    """Published minus `number`."""
    interval: tuple[float, float] | None
    """95 % of `remains`, over images, of what the variant changed; None for fewer than 30 images."""
    tolerance: float
    """Half of the published number's last digit."""

    before: float
    """Published minus the stored result."""

    @property
    def closes(self) -> bool:
        """Whether nothing remains to the last published digit, or less than half, and 0 is within the interval."""
        if abs(self.remains) <= self.tolerance + 1e-9:
            return True
        within = self.interval is not None and self.interval[0] <= 0 <= self.interval[1]
        return within and abs(self.remains) < abs(self.before) / 2


def verdict(trials: Sequence[Trial], before: float, metric: str) -> str:
    """Which axis or pair closes the difference of `before`, or that none does."""
    closing = sorted((trial for trial in trials if trial.closes), key=lambda trial: abs(trial.remains))
    if not closing:
        nearest = min(trials, key=lambda trial: abs(trial.remains), default=None)
        left = f"; nearest: {_named(nearest)}, which leaves {nearest.remains:+.2f}" if nearest else ""
        return f"No axis and no pair of them closes the {before:+.2f} points of {metric}{left}."
    least = abs(closing[0].remains)
    first = [trial for trial in closing if abs(trial.remains) <= least + 1e-9]
    rest = dict.fromkeys(trial.variant.axis for trial in closing[len(first) :])
    also = f" Other values within their intervals: {', '.join(rest)}." if rest else ""
    named = " or ".join(map(_named, first))
    return f"{named} closes it: {closing[0].remains:+.2f} of {before:+.2f} points of {metric} remain.{also}"


def _named(trial: Trial) -> str:
    return f"{trial.variant.axis} ({trial.variant.value})"
