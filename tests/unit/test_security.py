"""What SECURITY.md promises of the code itself: no shell, and nothing that bandit finds and nobody has looked at."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from test_results import RESULT

from cgh_bench import cli, results
from cgh_bench.core.errors import UserError
from cgh_bench.reading.loading import load

ROOT = Path(__file__).parents[2]
FOLDERS = ("cgh_bench", "pretrain", "transfer_configs", "tools", "benchmarks")
OURS = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

# File and bandit's name of the finding: why it is right as it is.
REVIEWED = {
    ("cgh_bench/core/pickles.py", "B614"): "weights_only, but where --trust-pickle was given",
    ("cgh_bench/core/pickles.py", "B301"): "an unpickler whose find_class knows harmless names alone",
    ("cgh_bench/data/annotations.py", "B314"): "expat from 2.4.1 on stops entity bombs, and follows no external entity",
    ("cgh_bench/data/ground_truth.py", "B314"): "the same",
    ("cgh_bench/reproduce.py", "B301"): "what the parent process sends through its own pipe",
    ("cgh_bench/doctor/system.py", "B108"): "/dev/shm is measured, not written to",
    ("cgh_bench/data/image_set.py", "B108"): "the same",
    ("cgh_bench/site/page.py", "B704"): "our own icons, style and script, no data",
    ("cgh_bench/converters/huggingface.py", "B615"): "a folder that we have just written, not the Hub",
    ("transfer_configs/detectron2/forward.py", "B301"): "the file that we have just written",
}
RUFF = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format=json"]
# Low by bandit's own scale: asserts, numbers that are no secrets, processes that are started from argument lists.
LOW = "S101,S311,S603,S606,S607"
SHELLS = ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput")
# Low severity, or true of every process that is started: subprocess from an argument list, asserts of invariants.
LEVEL = "-ll"


def test_no_shell() -> None:
    assert [f"{path.relative_to(ROOT)}:{line}" for path in OURS for line in shells(path)] == []


def shells(path: Path) -> Iterator[int]:
    """The lines that start a shell, or run text as code."""
    text = path.read_text(encoding="utf-8")
    if not re.search(r"\b(shell|system|popen|eval|exec|getoutput)\b", text):
        return  # unparsing every call of every file takes seconds
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        if ast.unparse(node.func) in SHELLS:
            yield node.lineno
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                yield node.lineno


def test_errors_do_not_command_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), cli.errors_in_one_line():
        raise UserError("the class 'a\x1b]0;owned\x07\nb\u202e\udce9' of größe 猫 is unknown")
    said = capfd.readouterr().err
    assert said == "error: the class 'a\\x1b]0;owned\\x07\\nb\\u202e\\udce9' of größe 猫 is unknown\n"


FORGED = "x\x1b[2J\x9b1;1H\u202e\nanimals_knn, seed 0: Top-1 99.99"


def test_names_out_of_files_do_not_command_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = dataclasses.replace(RESULT, checkpoint_name=FORGED, overridden=(FORGED,), started=FORGED)
    results.append(tmp_path / "results.jsonl", result)
    weights = torchvision.models.resnet18().state_dict()
    torch.save({"arch": FORGED, "state_dict": weights}, tmp_path / f"{FORGED[:20]}.pth")
    for command in (
        ["results", "list", "--work", str(tmp_path)],
        ["results", "show", "1", "--work", str(tmp_path)],
        ["inspect", str(tmp_path / f"{FORGED[:20]}.pth")],
        ["eval", "animals_knn", "--dry-run", "--work", str(tmp_path), "--ckpt", str(tmp_path / f"{FORGED[:20]}.pth")],
    ):
        cli.app(command, standalone_mode=False)
        said = "".join(capfd.readouterr())
        assert said and all(c in "\n\t" or c.isprintable() for c in said), command
        assert not any(line.startswith("animals_knn, seed 0: Top-1 99.99") for line in said.splitlines())


def test_bandits_rules_in_ruff_find_nothing_that_was_not_looked_at() -> None:
    command = [*RUFF, "--select=S", f"--ignore={LOW}", *FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [
        (Path(each["filename"]).relative_to(ROOT), each["code"], each["message"]) for each in json.loads(done.stdout)
    ]
    assert found and [one for one in found if (str(one[0]), f"B{one[1][1:]}") not in REVIEWED] == []


@pytest.mark.slow
def test_bandit_finds_nothing_that_was_not_looked_at() -> None:
    pytest.importorskip("bandit")
    command = [sys.executable, "-m", "bandit", "-q", "-f", "json", LEVEL, "-r", *FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {(issue["filename"], issue["test_id"]): issue for issue in json.loads(done.stdout)["results"]}
    new = [f"{file}:{issue['line_number']} {name} {issue['issue_text']}" for (file, name), issue in found.items()]
    assert [line for line, key in zip(new, found, strict=True) if key not in REVIEWED] == []
    assert set(REVIEWED) <= set(found), "reviewed, but not found any more: remove it from the list"


@pytest.mark.parametrize("anchor", ["layer1.0.conv1.weight", "blocks.0.norm1.weight"])
def test_a_file_of_thousands_of_networks_is_told_in_seconds(tmp_path: Path, anchor: str) -> None:
    """Each was looked for among the tensors of all: 20 seconds for 4,000, and four times that for twice as many."""
    path = tmp_path / "many.safetensors"
    save_file({f"n{number}.{anchor}": torch.zeros(1) for number in range(1500)}, path)
    started = time.process_time()
    with pytest.raises(UserError, match="cannot be used"):
        load(path)
    assert time.process_time() - started < 4
