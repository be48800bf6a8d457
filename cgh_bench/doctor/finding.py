"""What the checks found, and what that means: which tasks and recipes can run here, and why others cannot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "absent", "broken"]
"""`note`: works, with a restriction. `absent`: optional and not installed. `broken`: must be fixed."""
EVERYTHING = ("python", "packages", "torch", "torchvision", "numpy", "writing")
"""Subjects of findings that every task and recipe needs."""
NO_DATA = "missing datasets"


@dataclass(frozen=True)
class Finding:
    """What a check found, its effect, and how to fix it."""

    subject: str
    """What was checked: `torch`, `detectron2`, `data coco`, …; tasks name what they need by it."""
    state: State
    found: str
    consequence: str = ""
    remedy: str = ""
    """The exact command, or words for what only a person can do."""

    def __post_init__(self) -> None:
        assert self.state == "ok" or (self.consequence and self.remedy), self

    @property
    def prevents(self) -> bool:
        """Whether tasks that need the subject cannot run."""
        return self.state in ("absent", "broken")


@dataclass(frozen=True)
class Work:
    """A task or recipe, and the subjects of findings that it needs."""

    kind: str
    """`pretrain`, `frozen` (features of a frozen backbone), or the framework."""
    name: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether it can run, and if not, because of what."""

    kind: str
    name: str
    because: tuple[str, ...] = ()

    @property
    def can_run(self) -> bool:
        """Whether nothing prevents it."""
        return not self.because

    @property
    def lacks_only_data(self) -> bool:
        """Whether nothing but data sets is missing."""
        return bool(self.because) and all(reason.startswith("data ") for reason in self.because)


def judge(works: Iterable[Work], findings: Sequence[Finding]) -> list[Verdict]:
    """One verdict per entry of `works`."""
    wrong = {finding.subject: f"{finding.subject}: {finding.found}" for finding in findings if finding.prevents}
    return [
        Verdict(work.kind, work.name, tuple(wrong[each] for each in (*EVERYTHING, *work.needs) if each in wrong))
        for work in works
    ]


def sentences(verdicts: Iterable[Verdict], brief: bool = False) -> list[str]:
    """The verdicts in words, by kind: what can run, and what cannot with the reason.

    With `brief`, tasks that lack only datasets are counted instead of named.
    """
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for verdict in verdicts:
        because = (NO_DATA,) if brief and verdict.lacks_only_data else verdict.because
        grouped.setdefault((verdict.kind, because), []).append(verdict.name)
    return [
        f"{kind:10} {'cannot run' if because else 'can run':10} "
        + (f"{len(names)} more" if because == (NO_DATA,) else ", ".join(names))
        + (f"\n{'':21} because of {'; '.join(because)}" if because else "")
        for (kind, because), names in sorted(grouped.items(), key=lambda group: _order(group[0]))
    ]


def as_json(findings: Sequence[Finding], verdicts: Sequence[Verdict]) -> Mapping[str, object]:
    """Findings and verdicts as JSON values."""
    return {
        "findings": [vars(finding) for finding in findings],
        "verdicts": [{**vars(verdict), "can_run": verdict.can_run} for verdict in verdicts],
    }


def _order(group: tuple[str, tuple[str, ...]]) -> tuple[int, str, bool]:
    kind, because = group
    return {"pretrain": 0, "frozen": 1}.get(kind, 2), kind, bool(because)
