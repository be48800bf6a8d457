"""The command `cgh-bench`: one verb a step. Heavy packages are imported inside the verbs, so that help is instant."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cgh_bench import __version__
from cgh_bench.errors import CheckFailed, UserError, unknown

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Is this pretrained backbone any good, and is it better than the others?",
    epilog="Start with: cgh-bench demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Work = Annotated[Path, typer.Option(envvar="CGH_WORK", help="The folder that everything is written to.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; may be repeated.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Repeat with the seeds 0 to N-1.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")]
HERE = Path("work")
INTERRUPTED = 130
"""Exit code after Ctrl-C, which typer has made of it before it comes to `main`."""


def main() -> None:
    """Run the command line; every error that a user can mend is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        _stop(f"error: {error}", 2)
    except CheckFailed as error:
        _stop(f"check failed: {error}", 1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _stop("stopped; what was done is saved: the same command goes on from here", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cgh-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def demo(work: Work = HERE, seeds: Seeds = 1) -> None:
    """The whole path on real images: pretrain, convert, evaluate, the table and a web page.

    Uses the images that come with the installation; finished steps are reused.

    \b
    Examples:
      cgh-bench demo
      cgh-bench demo --seeds 3
    """
    table("animals", run=True, seeds=seeds, work=work)
    report("animals", work=work)


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A name from `cgh-bench list recipes`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: WORK/pretrain/RECIPE/seedN]")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, data order and views.")] = 0,
    settings: Settings = None,
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Train a recipe; a finished run is reused, an interrupted one goes on where it stopped.

    \b
    Examples:
      cgh-bench pretrain cgh_r18_animals
      cgh-bench pretrain cgh_r18_animals --set epochs=2 --set method.queue_length=1024 -o runs/short
      torchrun --nproc-per-node 8 -m cgh_bench pretrain cgh_r50_in1k_200ep
    """
    from cgh_bench.config import override, plain
    from cgh_bench.evaluate import Workspace
    from pretrain.recipe import find

    chosen = override(find(recipe), [*(settings or []), f"seed={seed}"])
    folder = out or Workspace(work).pretraining(recipe, seed)
    if dry_run:
        print(json.dumps({"recipe": recipe, "out": str(folder), **plain(chosen)}, indent=2))
        return
    from pretrain.train import train

    # With other settings it is not the recipe any more, and must not fill the recipe's row in a table.
    print(train(chosen, f"{recipe} with {', '.join(settings)}" if settings else recipe, folder))


Source = Annotated[str | None, typer.Option(help="Read it as this origin (`cgh-bench list sources`).")]
Branch = Annotated[str | None, typer.Option(help="Which trunk of a file that has several: student, teacher, ….")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="Let a pickled file run the code that it names.")]


@app.command()
def inspect(
    ckpt: Annotated[Path, typer.Argument(help="A checkpoint file, or a Hugging Face folder.")],
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what a checkpoint is: origin, network, preprocessing, what is used, whether it looks trained.

    \b
    Examples:
      cgh-bench inspect moco_v2_800ep.pth.tar
      cgh-bench inspect dino.pth --branch student --json
    """
    from rich.console import Console

    from cgh_bench import inspection

    report = inspection.inspect(ckpt, source, branch, trust_pickle)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        Console(highlight=False).print(inspection.render(report))
    if report["problem"]:
        raise CheckFailed("the file cannot be used as it is")


@app.command()
def convert(
    ckpt: Annotated[list[str], typer.Argument(help="Checkpoints of any origin, or patterns of them.")],
    to: Annotated[str, typer.Option(help="A target from `cgh-bench list converters`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; for several inputs a folder.")] = None,
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    verify: Annotated[bool, typer.Option(help="Compare the outputs of source and target, stage by stage.")] = True,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificates as JSON.")] = False,
) -> None:
    """Write checkpoints for another framework, with its preprocessing, and prove it computes the same.

    Beside each file: the configuration that the weights imply, and FILE.certificate.json. Where the target computes
    something else, nothing is left in place and the exit code is 1.

    \b
    Examples:
      cgh-bench convert moco_v2_800ep.pth.tar --to mmdet -o moco_v2.pth
      cgh-bench convert 'runs/*/checkpoint.pth' --to detectron2 -o converted
      cgh-bench convert dino.pth --branch student --to huggingface --dry-run
    """
    from cgh_bench import conversion

    reading = conversion.Reading(source, branch, trust_pickle)
    planned = conversion.plan(ckpt, to, out)
    if dry_run:
        for line in conversion.preview(planned, to, reading):
            print(line)
        return
    for certificate in (certificates := conversion.run(planned, to, reading, verify)):
        if not as_json:
            print(conversion.sentence(certificate))
    if as_json:
        print(json.dumps(certificates, indent=1))


@app.command("eval")
def eval_(
    task: Annotated[str, typer.Argument(help="Names from `cgh-bench list tasks`, joined by commas.")],
    ckpt: Annotated[str, typer.Option("--ckpt", help="A checkpoint of any origin, or random:ARCH[:SEED].")],
    data: Annotated[str, typer.Option(help="The data set, for tasks without one: a name or a folder.")] = "",
    source: Source = None,
    branch: Branch = None,
    trust_pickle: Trust = False,
    seeds: Seeds = 1,
    settings: Settings = None,
    dry_run: DryRun = False,
    work: Work = HERE,
) -> None:
    """Evaluate a checkpoint and append the results to WORK/results.jsonl; finished evaluations are reused.

    \b
    Examples:
      cgh-bench eval animals_knn,animals_linear --ckpt work/pretrain/cgh_r18_animals/seed0/backbone.safetensors
      cgh-bench eval knn,linear --ckpt moco_v2_800ep.pth.tar --data ~/photos
      cgh-bench eval animals_det --ckpt random:resnet18 --seeds 3
    """
    from cgh_bench import checkpoint
    from cgh_bench.evaluate import Workspace, evaluate, find_finished, prepare
    from cgh_bench.report.terminal import show_result

    settings = [*(settings or []), *([f"data={data}"] if data else [])]
    evaluations = [prepare(name, settings) for name in task.split(",")]
    workspace = Workspace(work)
    for evaluation in evaluations:
        evaluation.task.data_fingerprint(workspace.cache)
    loaded = checkpoint.load(ckpt, source, branch, trust_pickle)
    for evaluation in evaluations:
        for seed in range(seeds):
            result = find_finished(evaluation, loaded, seed, workspace)
            if dry_run:
                print(f"{evaluation.protocol} seed {seed}: {'finished' if result else 'would run'} on {loaded.name}")
                continue
            show_result(result or evaluate(evaluation, loaded, seed, workspace), reused=result is not None)


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="A name from `cgh-bench list tables`, or a .toml file.")],
    run: Annotated[bool, typer.Option("--run", help="First pretrain and evaluate what is missing.")] = False,
    seeds: Seeds = 1,
    format: Annotated[str, typer.Option(help="terminal, md, tex or csv.")] = "terminal",
    check: Annotated[bool, typer.Option("--check", help="Then judge it by its reference; exit 1 if it fails.")] = False,
    work: Work = HERE,
) -> None:
    """Print a table of the results, with spread over seeds, published figures beside measured ones.

    \b
    Examples:
      cgh-bench table animals --run --seeds 3
      cgh-bench table animals --format tex
      cgh-bench table voc_det
    """
    from cgh_bench import reproduce, results
    from cgh_bench.discovery import registered
    from cgh_bench.evaluate import Workspace
    from cgh_bench.report import check as checks
    from cgh_bench.report import definition
    from cgh_bench.report import table as tables

    workspace = Workspace(work)
    definition_ = definition.load(name)
    if run:
        definition.require_recipes(definition_, registered("pretrain.methods", "RECIPES"))
        reproduce.run(definition_, range(seeds), workspace, _pretrain)
    records, complaints = results.read(workspace.store)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    filled = tables.build(name, records)
    if format == "terminal":
        from rich.console import Console

        from cgh_bench.report.formats import rich_table

        Console().print(rich_table(filled))
    else:
        print(tables.render(filled, format))
    if check:
        verdicts = checks.judge(filled)
        print(checks.markdown(verdicts))
        checks.require(verdicts)


def _pretrain(recipe: str, seed: int, folder: Path) -> Path:
    """The one place where the evaluating package uses the training one."""
    from dataclasses import replace

    from pretrain.recipe import find
    from pretrain.train import train

    return train(replace(find(recipe), seed=seed), recipe, folder)


@app.command()
def published(
    protocol: Annotated[str, typer.Option(help="A protocol; without one, and without a method: what there is.")] = "",
    method: Annotated[str, typer.Option(help="A method, by any name that is used for it.")] = "",
) -> None:
    """Figures that others published, with their sources, and where sources disagree.

    \b
    Examples:
      cgh-bench published
      cgh-bench published --protocol voc_det --method "MoCo v2"
    """
    from cgh_bench.report.terminal import show_published

    show_published(protocol, method)


@app.command()
def report(
    name: Annotated[str | None, typer.Argument(help="A table: one page of it. Without: a site of all results.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: WORK/report/NAME.html, WORK/site]")] = None,
    work: Work = HERE,
) -> None:
    """Write web pages that open from disk: tables, training curves, retrievals, detections, segmentations.

    \b
    Examples:
      cgh-bench report animals -o page.html
      cgh-bench report -o site
    """
    from cgh_bench.evaluate import Workspace
    from cgh_bench.report import page, site

    workspace = Workspace(work)
    if name:
        written = page.write(name, workspace.store, workspace.root, out or work / "report" / f"{name}.html")
    else:
        written = site.write(workspace.store, workspace.root, out or work / "site")
    print(f"page: {written.resolve().as_uri()}")


LISTS = ("tasks", "recipes", "converters", "sources", "data", "tables")


@app.command("list")
def list_(kind: Annotated[str, typer.Argument(help=", ".join(LISTS))]) -> None:
    """What there is, a line each.

    \b
    Example:
      cgh-bench list tasks
    """
    if kind not in LISTS:
        raise unknown("list", kind, LISTS)
    for name, description in _entries(kind).items():
        print(f"{name:24} {description}")


def _entries(kind: str) -> dict[str, str]:
    from cgh_bench import evaluate
    from cgh_bench.data import catalog
    from cgh_bench.discovery import registered
    from cgh_bench.report import definition

    entries: dict[str, Any]
    if kind == "tasks":
        entries = registered("cgh_bench.tasks", "TASKS")
        return {name: f"{evaluate.protocol_id(name, task)}: {_summary(task)}" for name, task in entries.items()}
    if kind == "recipes":
        return {name: _summary(recipe.method) for name, recipe in registered("pretrain.methods", "RECIPES").items()}
    if kind == "data":
        return {name: entry.description for name, entry in catalog().items()}
    if kind == "tables":
        return {name: definition.load(name).title for name in definition.names()}
    if kind == "converters":
        return {name: _summary(entry) for name, entry in registered("cgh_bench.converters", "CONVERTERS").items()}
    from cgh_bench.readers import READERS

    return {name: reader.description for name, reader in READERS.items()}


def _summary(entry: object) -> str:
    return (type(entry).__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    main()
