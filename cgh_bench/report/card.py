"""Results on their way to a hub or into a paper: a model card, a paragraph on methods, and what to cite."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench import __version__, tasks
from cgh_bench.core.config import plain
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.report import cells, provenance
from cgh_bench.report.cells import Cell
from cgh_bench.report.sensitivity import label_of
from cgh_bench.results import Result
from cgh_bench.tasks.base import Metric, metric_label

REFERENCES = Path(__file__).parent / "references.bib"
"""What to cite; the keywords of an entry are the tasks, methods, datasets and frameworks that it is cited for."""
KINDS = {
    "box_AP": "object-detection",
    "mask_AP": "image-segmentation",
    "keypoint_AP": "keypoint-detection",
    "mIoU": "image-segmentation",
    "top1": "image-classification",
    "accuracy": "image-classification",
}
"""The Hugging Face name of a task, by its first metric; others are `image-feature-extraction`."""


@dataclass(frozen=True)
class Measured:
    """One backbone under one protocol."""

    label: str
    """Its recipe, or the name of its checkpoint."""
    run: Result
    """The first of the runs."""
    numbers: tuple[tuple[Metric, Cell], ...]


def measured(chosen: Sequence[Result], data: Mapping[str, str]) -> list[Measured]:
    """What tables would show of the `chosen` results, backbone by backbone.

    Args:
        chosen: results of any backbones and tasks.
        data: for each protocol, the fingerprint of the data that counts (`cells.newest_data`).

    Raises:
        UserError: none of them may stand in a table (settings were overridden, images left out, the data replaced).
    """
    known = registered("cgh_bench.tasks", "TASKS")
    chosen = [each for each in chosen if each.task in known]
    found: list[Measured] = []
    notes: list[str] = []
    for label in dict.fromkeys(map(label_of, chosen)):
        usable = cells.usable([each for each in chosen if label_of(each) == label], data, label, notes)
        for protocol in dict.fromkeys(each.protocol for each in usable):
            task = known[protocol.partition("@")[0]]
            filled = [(metric, cells.cell(usable, protocol, metric.name)) for metric in task.METRICS]
            numbers = tuple((metric, cell) for metric, cell in filled if cell.n)
            if numbers:
                found.append(Measured(label, numbers[0][1].runs[0], numbers))
    if not found:
        raise UserError(" ".join(notes) or "no matching result; see `cgh-bench results list`")
    return found


def card(found: Sequence[Measured]) -> str:
    """The model card of one backbone for the Hugging Face Hub: its metadata with `model-index`, then the text.

    Raises:
        UserError: the results are of several backbones.
    """
    from huggingface_hub import EvalResult, ModelCardData

    if len(names := list(dict.fromkeys(each.label for each in found))) > 1:
        raise UserError(f"a model card describes one backbone, not {', '.join(names)}; choose with --ckpt or --method")
    entries = [
        EvalResult(
            task_type=KINDS.get(each.numbers[0][0].name, "image-feature-extraction"),
            dataset_type=_data(each.run),
            dataset_name=_data(each.run),
            dataset_revision=each.run.data or None,
            metric_type="accuracy" if metric.name in ("top1", "accuracy") else metric.name,
            metric_name=f"{metric_label(metric.name)}{metric.suffix} ({each.run.protocol})",
            metric_value=round(cell.mean, 4),
        )
        for each in found
        for metric, cell in each.numbers
        if metric.higher_is_better is not None
    ]
    origin = found[0].run.origin
    licence = str(origin.get("licence") or "")
    data = ModelCardData(
        license=licence or None, tags=["cgh-bench", "vision"], model_name=names[0], eval_results=entries
    )
    unstated = "not recorded; add it before publishing"
    runs = [run for each in found for _, cell in each.numbers for run in cell.runs]
    weights = "".join(
        f"- {', '.join(f'{name.lower()} {value}' for name, value in facts.items())}\n"
        for facts in provenance.of_checkpoints(runs)
    )
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {names[0]}\n\n{_table(found)}\n## Methods\n\n"
        f"{methods(found)}\n## Weights\n\n{weights}"
        f"- licence: {licence or unstated}\n{_cost(runs)}\n## To cite\n\n```bibtex\n{bibtex(found)}```\n"
    )


def _cost(runs: Sequence[Result]) -> str:
    """A line for each size of image at which the cost of one was measured."""
    lines: dict[tuple[int, int], str] = {}
    for run in runs:
        if cost := run.cost:
            height, width = cost["image"]
            speed = f"{1000 / cost['images_per_second']:.3g} ms in batches of {cost['batch']} on {run.device}"
            flops = f"{cost['flops'] / 1e9:.3g} GFLOPs (two per multiply-add)"
            lines.setdefault((height, width), f"- per image of {width} × {height}: {flops}, {speed}\n")
    parameters = runs[0].origin.get("parameters", 0) / 1e6
    return f"- {parameters:.1f} million parameters\n" * bool(parameters) + "".join(lines.values())


def _table(found: Sequence[Measured]) -> str:
    lines = ["| protocol | metric | value |", "| --- | --- | ---: |"]
    lines += [
        f"| `{each.run.protocol}` | {metric_label(metric.name)}{metric.suffix} | {cell.text(2)} |"
        for each in found
        for metric, cell in each.numbers
    ]
    return "\n".join(lines) + "\n"


def methods(found: Sequence[Measured]) -> str:
    """A paragraph on methods, in Markdown: every protocol with its data and settings, every number with its spread."""
    said = []
    for protocol in dict.fromkeys(each.run.protocol for each in found):
        mine = [each for each in found if each.run.protocol == protocol]
        run, metric = mine[0].run, mine[0].numbers[0][0]
        what = provenance.summary(tasks.find(run.task)).rstrip(".")
        values = ", ".join(f"{each.label} {each.numbers[0][1].text(2)}" for each in mine)
        said.append(
            f"`{protocol}` on {_data(run)}: {what[0].lower()}{what[1:]} ({_settings(run)}). "
            f"{metric_label(metric.name)}{metric.suffix}: {values}."
        )
    commits = sorted({each.run.commit for each in found if each.run.commit})
    code = f", commit {', '.join(commits)}" if commits else ""
    start = (
        f"We evaluated with cgh-bench {__version__}{code}; the id after @ is a fingerprint of all settings. Values are "
        "means ± standard deviations over seeds (number of seeds in brackets) if there are several."
    )
    return " ".join([start, *said]) + "\n"


def _data(run: Result) -> str:
    return str(run.config.get("data") or "own data").rstrip("/").rpartition("/")[2]


def _settings(run: Result) -> str:
    """The settings of a task that are one value each."""
    own = {name: value for name, value in run.config.items() if name not in ("type", "data", "definition")}
    return ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in own.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    )


def bibtex(found: Sequence[Measured]) -> str:
    """What to cite for these results, and this software with its version."""
    recipes = registered("cgh_bench.pretrain.methods", "RECIPES")
    cited: set[str] = set()
    for each in found:
        task: Any = tasks.find(each.run.task)
        cited |= {_module(task), each.run.task, _data(each.run), str(plain(task).get("framework", ""))}
        if recipe := recipes.get(str(each.run.origin.get("recipe"))):
            cited |= {_module(recipe.method), str(recipe.data)}
    entries = REFERENCES.read_text(encoding="utf-8").strip().split("\n\n")
    chosen = [re.sub(r"  keywords = .*\n", "", entry) for entry in entries if cited & _keywords(entry)]
    commits = sorted({each.run.commit for each in found if each.run.commit})
    note = f"Version {__version__}" + (f", commit {', '.join(commits)}" if commits else "")
    own = (
        "@software{cgh_bench,\n  author = {{The cgh-bench maintainers}},\n  title = {cgh-bench},\n"
        f"  note = {{{note}}},\n}}"
    )
    return "\n\n".join([own, *chosen]) + "\n"


def _keywords(entry: str) -> set[str]:
    listed = re.search(r"keywords = \{(.*)\}", entry)
    return set(listed[1].split(", ")) if listed else set()


def _module(thing: Any) -> str:
    """The file that something is defined in: the name of a kind of task, or of a method."""
    return type(thing).__module__.rpartition(".")[2]
