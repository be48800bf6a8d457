"""The documentation builds without a warning, its commands exist, its quick start and examples run as they stand."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import faulty
import pytest
import torch
from pretrain_process import TINY_MOCO, made_up

from cgh_bench import cli, data, tasks
from cgh_bench.checkpoint import save
from cgh_bench.converters import convert as conversion
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.data.demo import animals
from cgh_bench.data.demo.silhouettes import Silhouettes
from cgh_bench.evaluation import evaluate, prepare
from cgh_bench.foreign import frameworks
from cgh_bench.pretrain import recipe as recipes
from cgh_bench.pretrain.train import train
from cgh_bench.reading.loading import load
from cgh_bench.tasks import detection, transfer
from cgh_bench.workspace import Workspace

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md"])


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "mkdocs.yml", "-d", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "extending.html").read_text(encoding="utf-8")
    assert "class Align(Method)" in re.sub("<.*?>", "", html), "the examples are shown"
    html = (tmp_path / "method.html").read_text(encoding="utf-8")
    assert html.count("<math") > 25 and "$" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


# commands


def commands(page):
    """Every line of the page that calls us, without its comment, continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?: {4})?(?:srun )?(?:torchrun [^\n]*-m cgh_bench|cgh-bench) ([^\n]*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def parse(command, words, name="cgh-bench"):
    """Let click read the words, and run nothing."""
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    return name, command.make_context(name, words).params


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_and_so_do_the_tasks_and_recipes_it_names(page):
    for words in commands(page):
        if "…" in words or "[--" in " ".join(words):
            continue
        verb, given = parse(cli.app, words)
        if verb in ("eval", "watch"):
            for name in given["task"].split(","):
                tasks.find(name)
        if verb == "pretrain":
            recipes.find(given["recipe"])


def test_there_are_commands_to_look_at():
    assert sum(len(commands(page)) for page in PAGES) > 30


# troubleshooting

FOREIGN = (
    "Weights only load failed", "Unsupported global", "Bus error", "DataLoader worker", "Too many open files",
    "received 0 items", "No space left", "Disk quota", "is killed by signal",
)  # fmt: skip


def test_the_errors_that_are_explained_are_errors_that_we_raise():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").split("## Checkpoints")[1]
    sources = [
        path.read_text(encoding="utf-8") for path in (*ROOT.glob("cgh_bench/**/*.py"), *ROOT.glob("pretrain/*.py"))
    ]
    said = re.sub(r'"\s+f?"', "", "\n".join(sources))  # messages that go over several lines
    explained = [
        cell for row in re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE) for cell in re.findall(r"`(.*?)`", row)
    ]
    parts = [part.strip() for cell in explained for part in cell.split("…")]
    ours = [part for part in parts if len(part) > 7 and not part.startswith(FOREIGN)]
    assert len(ours) > 12 and [part for part in ours if part not in said] == []


# the method


def test_the_lines_that_the_method_page_quotes_are_in_the_code():
    text = (DOCS / "method.md").read_text(encoding="utf-8").split("## Options")[0]
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("pretrain/**/*.py"))
    quoted = [line for row in re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE) for line in re.findall(r"`(.*?)`", row)]
    assert len(quoted) > 10
    assert [line for line in quoted if not re.search(".*".join(map(re.escape, line.split("…"))), code)] == []


# quick start


def run_page(folder):
    """Every block of the quick start, one after another, in an empty folder."""
    os.chdir(folder)
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, "index.md", "exec"), {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "cgh-bench", line
            sys.argv = [program, *words]
            print("$", line, flush=True)
            with pytest.raises(SystemExit) as left:
                cli.main()
            if left.value.code:
                raise left.value


@pytest.mark.slow
def test_the_quick_start_works_as_it_stands(tmp_path):
    (tmp_path / "here").mkdir()
    code, said = faulty.run(quick_start, tmp_path)
    assert code == 0, said
    here = tmp_path / "here"
    results = [json.loads(line) for line in (here / "work/results.jsonl").read_text().splitlines()]
    assert [(r["task"], r["checkpoint_name"]) for r in results] == [
        ("knn", "mine"), ("linear", "mine"), ("knn", "random:resnet18"), ("linear", "random:resnet18"),
    ]  # fmt: skip
    assert (here / "site/index.html").exists()
    assert json.loads((here / "converted.pth.certificate.json").read_text())["verdict"] == "same outputs"


def quick_start(folder):
    run_page(folder / "here")


def test_the_examples_of_the_python_page_run_one_after_another(tmp_path):
    code, said = faulty.run(python_page, tmp_path)
    assert code == 0, said
    assert (tmp_path / "work/results.jsonl").exists() and (tmp_path / "resnet18.safetensors").exists()


def python_page(folder):
    """In a process of its own, with a twentieth of the animals."""
    whole = animals.silhouettes
    animals.silhouettes = lambda split: Silhouettes(whole(split).images[::20], whole(split).labels[::20])
    os.chdir(folder)
    faulty.images(folder, each=2).rename("photos")
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    exec(compile("\n".join(blocks), "api.md", "exec"), {"__name__": "api"})


# examples


@pytest.fixture
def registering(monkeypatch):
    """Let the modules of `docs/examples/FOLDER` be found in `package`, as if they had been put there."""

    def add(package, folder):
        module = sys.modules.get(package) or __import__(package, fromlist=["x"])
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(DOCS / "examples" / folder)])
        registered.cache_clear()

    yield add
    monkeypatch.undo()
    registered.cache_clear()


def test_the_example_method_trains(tmp_path, registering, monkeypatch):
    registering("cgh_bench.pretrain.methods", "methods")
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())
    example = recipes.find("align_r18_animals")
    small = replace(example, epochs=1, batch_size=8, views=TINY_MOCO.views)
    trained = train(small, "align_r18_animals", tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert trained.exists() and {"distance", "variance"} <= set(log[-1])


def test_the_example_task_evaluates(tmp_path, registering):
    from cgh_bench.checkpoint import random_checkpoint

    registering("cgh_bench.tasks", "tasks")
    settings = [f"data={faulty.images(tmp_path)}", "transform.resize=32", "transform.crop=32"]
    workspace = Workspace(tmp_path / "work")
    (evaluation,) = prepare(["nearest_mean"], workspace, settings)
    result = evaluate(evaluation, random_checkpoint("resnet18"), 0, workspace)
    assert 0 <= result.metrics["top1"] <= 100 and result.protocol.startswith("nearest_mean@")


def test_the_example_converter_is_certified(tmp_path, registering):
    registering("cgh_bench.converters", "converters")
    planned = conversion.plan(["random:resnet18"], "wrapped", tmp_path / "out.pth")
    (certificate,) = conversion.run(planned, "wrapped", lambda name: (load(name), None), True)
    assert certificate["verdict"] == "same outputs" and (tmp_path / "out.pth").exists()


def test_the_example_family_is_a_backbone(tmp_path, registering, monkeypatch):
    registering("cgh_bench.backbones", "backbones")
    given = load("random:plain16:1")
    save(given, tmp_path / "plain.safetensors")
    assert load(tmp_path / "plain.safetensors").id == given.id
    backbone = given.backbone()
    images = torch.randn(2, 3, 64, 48)
    assert backbone(images).shape == (2, backbone.dim) == (2, 64)
    for stage, found in backbone.pyramid(images).items():
        said = backbone.stages[stage]
        assert found.shape == (2, said.channels, 64 // said.stride, 48 // said.stride)
    settings = [f"data={faulty.images(tmp_path)}", "transform.resize=32", "transform.crop=32"]
    settings += ["epochs=1", "batch_size=4", "crop.size=32"]
    workspace = Workspace(tmp_path / "work")
    (tuning,) = prepare(["finetune"], workspace, settings)
    assert 0 <= evaluate(tuning, given, 0, workspace).metrics["top1"] <= 100
    monkeypatch.setattr(data, "load", lambda *_, **__: made_up())
    small = replace(TINY_MOCO, architecture=given.architecture, epochs=1)
    assert load(train(small, "moco_plain16", tmp_path / "run")).architecture == given.architecture


@pytest.mark.slow
def test_the_example_protocol_is_built_by_its_framework(tmp_path, monkeypatch):
    try:
        frameworks.require_installed("mmdet")
    except UserError as absent:
        pytest.skip(str(absent))
    protocols = Path(shutil.copytree(frameworks.find("mmdet").path, tmp_path / "protocols"))
    shutil.copy(DOCS / "examples/protocols/animals_det_2x.py", protocols)
    monkeypatch.setattr(frameworks.Framework, "path", protocols)
    (entry,) = re.findall(r"^TASKS \|= .*$", (DOCS / "extending.md").read_text(encoding="utf-8"), re.MULTILINE)
    found = {"TASKS": {}, "Detection": detection.Detection}
    exec(entry, found)
    (name,) = found["TASKS"]
    monkeypatch.setitem(registered("cgh_bench.tasks", "TASKS"), name, found["TASKS"][name])
    ours, base = transfer.facts(name), transfer.facts("animals_det")
    assert (ours["solver / steps"], base["solver / steps"]) == (500, 250)
    assert {fact for fact in base if not fact.startswith("solver / ") and ours.get(fact) != base[fact]} == set()


# notebooks


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run(tmp_path, path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    shown = protocols_in(notebook)
    nbclient.NotebookClient(
        notebook, timeout=600, startup_timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert protocols_in(notebook) == shown, f"execute it again: jupyter nbconvert --execute --inplace {path}"


def protocols_in(notebook):
    """The protocol ids in the outputs: they must be today's."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "a notebook is kept executed"
    return re.findall(r"\w+@[0-9a-f]{8}", json.dumps([cell.outputs for cell in cells]))
