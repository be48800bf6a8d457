"""Telling what a checkpoint is, without using it for anything: `cgh-bench inspect FILE`."""

import collections
import contextlib
import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cgh_bench import backbones
from cgh_bench.backbones.base import Architecture
from cgh_bench.backbones.resnet_names import BUFFERS
from cgh_bench.checkpoint import Origin, Property, from_description
from cgh_bench.core.config import plain
from cgh_bench.core.errors import CheckFailed, UserError, printable
from cgh_bench.core.files import sha256
from cgh_bench.data.preprocessing import IMAGES
from cgh_bench.reading import hubs, loading, names, recognition
from cgh_bench.reading.candidate import place
from cgh_bench.reading.evidence import adjusted, settle
from cgh_bench.reading.health import checks
from cgh_bench.reading.names import stem
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.recognition import Choices, Recognised
from cgh_bench.reading.weights_file import WeightsFile, open_weights

Report = dict[str, Any]

_FACTS = ("arch", "epoch", "iteration", "version", "__author__", "pytorch-lightning_version", "meta/mmengine_version")


def inspect(name: str | Path, reference: Path | None = None, **choices: Unpack[Choices]) -> Report:
    """Everything that can be said of the checkpoint `name` (see `loading.load`), as plain values.

    `problem` says why it cannot be used, where it cannot; `checks` are remarks on whether it looks trained.

    Raises:
        UserError: the file cannot be opened at all, has no such `source`, `branch` or `arch`, or is a control.
    """
    started = time.monotonic()
    text, parsed = str(name), names.parse(str(name))
    if isinstance(parsed, names.Control):
        raise UserError(f"inspect needs a file; {text} is generated: evaluate it with `cgh-bench eval … --ckpt {text}`")
    if isinstance(parsed, Path):
        if not parsed.exists():
            raise names.absent(text)
        hub, file = None, open_weights(parsed, choices.get("trust_pickle", False))
    else:
        hub = hubs.fetch(parsed, text, choices.get("trust_code", False))
        file = hub.open(choices.get("trust_pickle", False))
    path = file.path
    report: Report = {
        "file": text,
        "format": file.kind,
        "bytes": sum(f.stat().st_size for f in (path.iterdir() if path.is_dir() else [path]) if f.is_file()),
        "sha256": hub.sha256 if hub and hub.sha256 else sha256(path) if path.is_file() else "",
        "revision": hub.revision if hub else "",
        "licence": hub.licence if hub else "",
        "transform": plain(hub.transform) if hub and hub.transform else None,
        "tensors": len(file.tensors),
        "facts": {key: str(file.facts[key])[:80] for key in _FACTS if key in file.facts},
        "problem": "",
    }
    source, branch, arch = choices.get("source"), choices.get("branch"), choices.get("arch")
    try:
        recognised = recognition.recognise(file, source, branch, arch)
        report |= _about_network(file, recognised, text, choices, reference is not None)
        if reference is not None:
            _, compared = loading.proven(text, reference, **choices)
            report |= {"reach": "origin", "reference": compared}
    except (CheckFailed, UserError) as error:
        if isinstance(error, UserError) and (source or branch or arch):  # the file may well be usable as another
            raise
        return report | {"problem": str(error), "ignored": _groups(file.tensors), "checks": [], "commands": []}
    finite = report["checks"][0]
    if finite["verdict"] == "bad":
        report |= {"problem": finite["remark"], "commands": []}
    return report | {"seconds": round(time.monotonic() - started, 2)}


def _about_network(
    file: WeightsFile, recognised: Recognised, called: str, choices: Choices, may_assume: bool
) -> Report:
    settings, branch = choices.get("settings", ()), recognised.choose(choices.get("branch"))
    network = recognised.networks[branch]
    weights = network.weights(file)
    used = set(network.names.values())
    source, reader = recognised.source, READERS.get(recognised.source)
    if file.description:
        described = adjusted(from_description(file.description, weights), settings)
        architecture, preprocessing, origin = described.architecture, described.preprocessing, described.origin
        if not reader and (reader := READERS.get(origin.source)):  # a carried backbone, which no origin has so
            source = origin.source
    else:
        architecture, preprocessing, properties = settle(file, network, source, settings, may_assume)
        origin = Origin(source, properties=properties, proof=reader.proof if reader else "")
    return {
        "source": source,
        "origin": reader.title if reader else "no known layout",
        "branch": branch,
        "branches": list(recognised.networks),
        "at": network.location,
        "architecture": backbones.to_fields(architecture),
        "parameters": sum(t.numel() for key, t in weights.items() if not key.endswith(BUFFERS)),
        "used": len(used),
        "ignored": _groups((name for name in file.tensors if name not in used), used),
        "preprocessing": plain(preprocessing) | {"certainty": _least_sure(origin.properties)},
        "properties": [plain(each) for each in origin.properties],
        "reach": origin.reach,
        "proof": origin.proof,
        "checks": checks(weights),
        "commands": _commands(called, _target(architecture), choices),
    }


def _least_sure(properties: Sequence[Property]) -> str:
    kinds = {each.kind for each in properties if each.name in IMAGES}
    return next((kind for kind in ("assumed", "implied") if kind in kinds), "stated")


def _target(architecture: Architecture) -> str:
    """A converter that can write it, for the command that is proposed."""
    for target, arguments in (("timm", architecture.timm_arguments), ("huggingface", architecture.transformers_config)):
        with contextlib.suppress(UserError):
            arguments()
            return target
    return "mmdet"


def _groups(names: Iterable[str], used: Collection[str] = ()) -> dict[str, int]:
    """The number of tensors by module, or by dictionary where that holds nothing `used`; the largest groups first."""
    holders = {name.rpartition("/")[0] for name in used}
    found: dict[str, int] = collections.Counter()
    for name in names:
        container, _, dotted = place(name).rpartition("/")
        is_apart = used and container not in holders
        module = "" if is_apart else ".".join(dotted.split(".")[:-1][:2])
        found[module or container.split("/")[0] or "top level"] += 1
    return dict(collections.Counter(found).most_common(8))


def _commands(called: str, target: str, choices: Choices) -> list[str]:
    """What to do next, with the choices that the file was read with."""
    name = stem(Path(called))
    options: list[str] = []
    for option, value in choices.items():
        if isinstance(value, str):
            options += [f"--{option}", value]
        elif value is True:
            options.append(f"--{option.replace('_', '-')}")
    options += [part for setting in choices.get("settings", ()) for part in ("--set", setting)]
    return [
        shlex.join(["cgh-bench", "convert", called, *options, "--to", target, "-o", f"{name}_{target}.pth"]),
        shlex.join(["cgh-bench", "eval", "knn", "--ckpt", called, *options, "--data", "FOLDER"]),
    ]


def render(report: Report) -> RenderableType:
    """The report for a terminal; names come from the file, so nothing in them is taken for markup."""
    table = Table.grid(padding=(0, 2))
    for label, value in _lines(report):
        table.add_row(Text(label, style="bold"), Text(printable(value)))
    styles = {"ok": ("✓", "green"), "doubt": ("?", "yellow"), "bad": ("✗", "red")}
    remarks = [Text.assemble(styles[check["verdict"]], f" {printable(check['remark'])}") for check in report["checks"]]
    if report["problem"]:
        remarks.append(Text(f"✗ {printable(report['problem'])}", style="red"))
    commands = (
        Text(f"  {printable(each)}", style="cyan", no_wrap=True, overflow="ignore") for each in report["commands"]
    )
    return Group(table, Text(), *remarks, *commands)


def _lines(report: Report) -> list[tuple[str, str]]:
    facts = ", ".join(f"{key} {value}" for key, value in report["facts"].items())
    lines = [
        ("file", f"{report['file']} ({report['bytes'] / 1e6:,.1f} MB)"),
        ("format", report["format"] + (f"; says {facts}" if facts else "")),
    ]
    ignored = ", ".join(f"{name} ({count})" for name, count in report["ignored"].items())
    if not report["checks"]:
        return [*lines, ("tensors", f"{report['tensors']}: {ignored}")]
    architecture, images = report["architecture"], report["preprocessing"]
    others = [name for name in report["branches"] if name != report["branch"]]
    size = f"{report['parameters'] / 1e6:.1f} M parameters"
    if "stem" in architecture:
        shape = [
            ("backbone", f"{architecture['name']}, {architecture['stem']} stem, {size}"),
            ("stride", f"on the {'first 1x1 (caffe)' if architecture['stride_in_1x1'] else '3x3'} convolution"),
        ]
    elif "pooling" in architecture:
        arguments = "".join(f", {key}={value}" for key, value in architecture["arguments"])
        shape = [
            ("backbone", f"timm's {architecture['name']}{arguments}, {size}"),
            ("feature", f"{architecture['pooling']} (layer4, the global feature)"),
        ]
    elif "config" in architecture:
        shape = [("backbone", f"transformers' {architecture['name']}, {size}")]
    else:
        details = f"heads of {architecture['head_width']}, norms with epsilon {architecture['norm_eps']:g}"
        tokens = f"{'a' if architecture['class_token'] else 'no'} class token, {architecture['registers']} registers"
        shape = [("backbone", f"{architecture['name']}, {size}"), ("tokens", f"{tokens}; {details}")]
    published = [(label, report[label]) for label in ("revision", "licence") if report[label]]
    if cut := report["transform"]:
        how = f"resize {cut['resize']}{' (both sides)' if cut['squash'] else ''}, crop {cut['crop']}"
        published.append(("hub transform", f"{how}, {cut['interpolation']} (--set transform=hub)"))
    return [
        *lines,
        *published,
        ("origin", f"{report['source']}: {report['origin']}"),
        ("branch", report["branch"] + (f"; also available: {', '.join(others)} (--branch)" if others else "")),
        *shape,
        ("tensors", f"{report['used']} used; ignored: {ignored or 'none'}"),
        ("images", _formula(images)),
        *_known(report["properties"]),
        ("proof", _REACHES[report["reach"]].format(proof=report["proof"])),
    ]


_REACHES = {
    "origin": "origin: compared with the outputs of the origin's own network",
    "convention": "convention: this origin's rule is tested against {proof}",
    "assumed": "assumed; verify against the original model (cgh-bench reference script)",
}


def _known(properties: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What no tensor tells, by how it is known and what says so."""
    lines = []
    for kind in ("stated", "implied", "assumed"):
        by_source: dict[str, list[str]] = {}
        for each in properties:
            if each["kind"] == kind:
                by_source.setdefault(each["source"], []).append(f"{each['name']}={_short(each['value'])}")
        for source, listed in by_source.items():
            lines.append((kind, ", ".join(listed) + ("" if kind == "assumed" else f" ({source})")))
    return lines


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _formula(images: Mapping[str, Any]) -> str:
    mean, std = (", ".join(f"{value:g}" for value in images[key]) for key in ("mean", "std"))
    sure = {
        "stated": "stated in the file",
        "implied": "implied by its origin",
        "assumed": "assumed; the file does not say",
    }[images["certainty"]]
    return f"{images['channel_order']}, 0 to {images['input_range']:g}, mean {mean}, std {std} ({sure})"
