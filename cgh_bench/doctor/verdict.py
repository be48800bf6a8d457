"""From findings to what they mean: which tasks and recipes can run here, and why the others cannot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cgh_bench.doctor.finding import Finding

EVERYTHING = ("python", "packages", "torch", "torchvision", "numpy", "writing")
"""What nothing runs without."""
NO_DATA = "data sets that are not there"


@dataclass(frozen=True)
class Work:
    """Something to run, and the subjects of findings that it needs."""

    kind: str
    """`pretrain`, `frozen` (features of the untouched trunk), or the framework."""
    name: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether it can run; `because` of what not."""

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
    """A verdict for each of `works`."""
    wrong = {finding.subject: f"{finding.subject}: {finding.found}" for finding in findings if finding.prevents}
    return [
        Verdict(work.kind, work.name, tuple(wrong[each] for each in (*EVERYTHING, *work.needs) if each in wrong))
        for work in works
    ]


def sentences(verdicts: Iterable[Verdict], brief: bool = False) -> list[str]:
    """The verdicts in words: for each kind what can run, and what cannot with the reason, a line each.

    To be `brief`, what only lacks data sets is counted.
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
    """Both, as JSON values."""
    return {
        "findings": [vars(finding) for finding in findings],
        "verdicts": [{**vars(verdict), "can_run": verdict.can_run} for verdict in verdicts],
    }


def _order(group: tuple[str, tuple[str, ...]]) -> tuple[int, str, bool]:
    kind, because = group
    return {"pretrain": 0, "frozen": 1}.get(kind, 2), kind, bool(because)
