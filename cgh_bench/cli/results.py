"""Commands on the file of results."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgh_bench.cli import options
from cgh_bench.core.errors import UserError, printable, unknown

if TYPE_CHECKING:
    from cgh_bench.results import Result


@click.group(cls=options.Group)
def results() -> None:
    """List, show, merge, export and import results."""


@results.command("list")
@options.filters
@options.work
def list_(task: str, protocol: str, ckpt: str, method: str, work: Path) -> None:
    """List results, one per line, with their numbers.

    \b
    Examples:
      cgh-bench results list
      cgh-bench results list --task animals_knn --method cgh
    """
    from cgh_bench.report.formats import show_results
    from cgh_bench.results import select

    show_results(select(read_results(work), task, protocol, ckpt, method))


@results.command()
@click.argument("number", type=options.COUNT)
@options.work
def show(number: int, work: Path) -> None:
    """Show one result in full.

    NUMBER is its number in `cgh-bench results list`. Prints weights, protocol with all settings, data, seed, code and
    versions.

    \b
    Example:
      cgh-bench results show 17
    """
    from cgh_bench.results import export_json

    print(export_json([one(number, work)]), end="")


@results.command()
@click.argument("number", type=options.COUNT)
@click.option("--format", default="csv", metavar="FORMAT", help="csv.")
@click.option("--out", "-o", type=options.PATH, help="Output file.  [default: standard output]")
@options.work
def predictions(number: int, format: str, out: Path | None, work: Path) -> None:
    """Export the per-image predictions of a run.

    NUMBER is the result's number in `cgh-bench results list`. Writes one line per image (classification), image and
    class (multi-label), image and pair of classes (segmentation), or detection.

    \b
    Example:
      cgh-bench results predictions 17 -o answers.csv
    """
    from cgh_bench import outcomes

    if format != "csv":
        raise unknown("format", format, ["csv"])
    _write(outcomes.of_run(one(number, work), work).to_csv(), out)


@results.command()
@click.option("--out", "-o", type=options.PATH, required=True, metavar="FILE", help="The zip file.")
@options.filters
@options.work
def bundle(out: Path, task: str, protocol: str, ckpt: str, method: str, work: Path) -> None:
    """Write results with all predictions to one file.

    It contains the records (weights by hash, versions, device), the per-image predictions of each run, and the hash of
    every file; `cgh-bench results verify` recomputes the metrics.

    \b
    Example:
      cgh-bench results bundle --method cgh -o cgh.zip
    """
    from cgh_bench import bundles, results

    chosen = [record for _, record in results.select(read_results(work), task, protocol, ckpt, method)]
    bundles.write(chosen, work, out)
    print(f"{len(chosen)} results written to {out}")


@results.command()
@click.argument("bundle", type=options.PATH)
def verify(bundle: Path) -> None:
    """Verify a bundle: check hashes and recompute metrics.

    Exits 1 if it was altered, or if a metric does not follow from the predictions.

    \b
    Example:
      cgh-bench results verify cgh.zip
    """
    from cgh_bench import bundles

    for each in bundles.verify(bundle):
        left = f"; not determined by the predictions: {', '.join(each.not_determined)}" if each.not_determined else ""
        print(printable(f"{each.result.protocol} of {each.result.checkpoint_name}: {', '.join(each.confirmed)}{left}"))


@results.command()
@click.argument("stores", metavar="STORE…", type=options.PATH, nargs=-1, required=True)
@options.work
def merge(stores: tuple[Path, ...], work: Path) -> None:
    """Merge other result files, skipping duplicates.

    STORE is a results.jsonl or another --work folder. New results are appended to WORK/results.jsonl.

    \b
    Example:
      cgh-bench results merge /mnt/gpu1/work /mnt/gpu2/work
    """
    from cgh_bench import results
    from cgh_bench.workspace import Workspace

    files = [Workspace(path).store if path.is_dir() else path for path in stores]
    if absent := [str(path) for path in files if not path.is_file()]:
        raise UserError(f"no results in {', '.join(absent)}; expected a results.jsonl or a --work folder")
    added, complaints = results.merge(files, Workspace(work).store)
    for complaint in complaints:
        print(printable(complaint), file=sys.stderr)
    print(f"{added} results added to {Workspace(work).store}")


@results.command()
@click.option(
    "--format",
    default="csv",
    metavar="FORMAT",
    help="csv (one line per metric), json (every field) or mteb (a folder).",
)
@click.option("--out", "-o", type=options.PATH, help="Output file, or folder (mteb).  [default: standard output]")
@options.filters
@options.work
def export(format: str, out: Path | None, task: str, protocol: str, ckpt: str, method: str, work: Path) -> None:
    """Export results as CSV, JSON or in MTEB's layout.

    mteb writes OUT/MODEL/REVISION/TASK.json with scores as fractions; `results import --from mteb` reads them.

    \b
    Examples:
      cgh-bench results export -o results.csv
      cgh-bench results export --format json --task animals_det
      cgh-bench results export --format mteb -o mteb_results
    """
    from cgh_bench import results
    from cgh_bench.report import mteb

    formats = {"csv": results.export_csv, "json": results.export_json}
    if format not in (*formats, "mteb"):
        raise unknown("export format", format, (*formats, "mteb"))
    chosen = [record for _, record in results.select(read_results(work), task, protocol, ckpt, method)]
    if format != "mteb":
        _write(formats[format](chosen), out)
    elif out is None:
        raise UserError("--format mteb writes a folder; name it with --out")
    else:
        for path, text in mteb.files(chosen).items():
            _write(text, out / path)


@results.command()
@click.option("--format", default="card", metavar="FORMAT", help="card, methods or bibtex.")
@click.option("--out", "-o", type=options.PATH, help="Output file.  [default: standard output]")
@options.filters
@options.work
def card(format: str, out: Path | None, task: str, protocol: str, ckpt: str, method: str, work: Path) -> None:
    """Write a model card, a methods paragraph or BibTeX.

    The card describes one backbone for the Hugging Face Hub: `model-index` with all numbers, licence of the weights,
    methods and references. Numbers are those of the tables: means over seeds, without overridden settings.

    \b
    Examples:
      cgh-bench results card --method cgh_r18_animals -o README.md
      cgh-bench results card --task animals_knn --format methods
      cgh-bench results card --format bibtex -o references.bib
    """
    from cgh_bench import results
    from cgh_bench.report import card as cards
    from cgh_bench.report.cells import newest_data

    formats = {"card": cards.card, "methods": cards.methods, "bibtex": cards.bibtex}
    if format not in formats:
        raise unknown("format", format, formats)
    records = read_results(work)
    chosen = [record for _, record in results.select(records, task, protocol, ckpt, method)]
    data = newest_data(records, {each.protocol for each in chosen})
    _write(formats[format](cards.measured(chosen, data)), out)


@results.command("import")
@click.argument("file", type=options.PATH)
@click.option("--from", "tool", required=True, metavar="TOOL", help="Tool that wrote it (`cgh-bench list importers`).")
@click.option("--ckpt", required=True, metavar="NAME", help="Checkpoint name as used in table rows.")
@options.text("--label", help="Evaluation to import, if the file holds several.")
@options.text("--protocol", metavar="TASK", help="Assert that the imported run followed this task's protocol.")
@options.count("--seed", 0, "Seed of that evaluation.", least=0)
@options.work
def import_(file: Path, tool: str, ckpt: str, label: str, protocol: str, seed: int, work: Path) -> None:
    """Import a result measured by another tool.

    It is marked as imported, and appears in tables only if you state which task's protocol it followed (--protocol).

    \b
    Examples:
      cgh-bench results import out/metrics.json --from detectron2 --ckpt moco_v2_200ep_pretrain --protocol coco_det
      cgh-bench results import results-imagenet.csv --from timm --ckpt resnet50 --label resnet50.a1_in1k
    """
    from cgh_bench import importers, results
    from cgh_bench.workspace import Workspace

    result = importers.read(importers.Import(file, tool, ckpt, label, protocol, seed))
    records = read_results(work)
    if result in records:
        print(f"{file} was already imported")
        return
    results.append(Workspace(work).store, result)
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in result.metrics.items())
    how = f"under {result.protocol}" if protocol else "without a protocol, so it appears in no table (see --protocol)"
    print(f"imported {metrics} for {ckpt}, {how}")


@results.command()
@click.argument("metric", metavar="TASK.METRIC")
@options.work
def correlate(metric: str, work: Path) -> None:
    """Correlate a metric with all others, over checkpoints.

    Prints Spearman's rank correlation with its 95 % bootstrap interval over checkpoints: does TASK.METRIC rank your
    checkpoints as the other metrics do? Seeds of one recipe count as separate checkpoints although they are similar;
    the interval is then too narrow.

    \b
    Example:
      cgh-bench results correlate animals_label_free.rankme
    """
    from cgh_bench.report.correlation import correlations
    from cgh_bench.report.formats import show_correlations

    show_correlations(correlations(read_results(work), metric))


def _write(text: str, out: Path | None) -> None:
    from cgh_bench.core.files import write_text

    if out:
        write_text(out, text)
    else:
        print(text, end="")


def one(number: int, work: Path) -> "Result":
    """The result with that number in `cgh-bench results list`."""
    records = read_results(work)
    if number > len(records):
        raise UserError(f"no result {number}; {work} has {len(records)}, see `cgh-bench results list`")
    return records[number - 1]


def read_results(work: Path) -> "list[Result]":
    """The results in a work folder; what is wrong with the file is printed."""
    from cgh_bench import results
    from cgh_bench.workspace import Workspace

    records, complaints = results.read(Workspace(work).store)
    for complaint in complaints:
        print(printable(complaint), file=sys.stderr)
    return records
