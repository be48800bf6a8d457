"""The published number that is to be explained."""

import csv
from dataclasses import dataclass

from cgh_bench import published
from cgh_bench.core.errors import UserError


@dataclass(frozen=True)
class Target:
    """A published number."""

    value: float
    digits: int
    """Behind the point."""


def target(text: str, metric: str) -> Target:
    """What `text` means: a number, or the start of a line of `published/results.csv`.

    Raises:
        UserError: neither, no such line, or several values.
    """
    try:
        number = float(text)
    except ValueError:
        number = _row(text, metric)
        text = published.printed(number)
    if not 0 <= number <= 100:
        raise UserError(f"--published {text}: expected a percentage between 0 and 100")
    return Target(number, len(text.partition(".")[2]))


def _row(text: str, metric: str) -> float:
    fields = [field.strip() for field in next(csv.reader([text]), [])]
    if len(fields) < 2:
        raise UserError(
            f"--published {text!r} is neither a number nor the start of a line of published/results.csv, "
            "PROTOCOL,METHOD[,DETAIL[,EPOCHS]] (`cgh-bench published`)"
        )
    rows = [row for row in published.select(fields[0], fields[1]) if row.metric == metric]
    columns = ("detail", "epochs", "cost", "metric", "value")
    for name, wanted in zip(columns, fields[2:], strict=False):
        rows = [row for row in rows if str(getattr(row, name) or "") == wanted]
    values = sorted({row.value for row in rows})
    if len(values) == 1:
        return values[0]
    if not values:
        raise UserError(
            f"--published {text!r}: no published {metric}; see `cgh-bench published --protocol {fields[0]}`"
        )
    lines = "; ".join(
        dict.fromkeys(f"{','.join(fields[:2])},{r.detail},{r.epochs or ''},{r.cost},{metric},{r.value}" for r in rows)
    )
    raise UserError(f"--published {text!r} matches {len(values)} values; choose one of: {lines}")
