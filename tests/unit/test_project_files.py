"""Files that only other programs read, and that would rot unseen."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

import cgh_bench

ROOT = Path(__file__).parents[2]
YAML = [
    *(ROOT / ".github").rglob("*.yml"),
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "mkdocs.yml",
]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_can_be_read(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == cgh_bench.__version__ and cited["license"] == "Apache-2.0"


def test_the_workflow_calls_verbs_that_exist():
    workflow = (ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"run: make ([\w -]+)", workflow):
        for name in verb.split():
            assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_hooks_call_the_environment_and_need_no_network():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks["repos"][0]["hooks"])


def test_the_image_is_made_of_what_there_is():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied and set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in navigation, f"add docs/{page.name} to the navigation in mkdocs.yml"


def test_the_wheel_holds_every_file_of_the_package():
    """Two folders of the top level are installed below `cgh_bench`, through links that lie there."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {name.replace(".", "/") for name in find_packages(str(ROOT), **config["packages"]["find"])}
    data = {path for glob in config["package-data"]["cgh_bench"] for path in (ROOT / "cgh_bench").glob(glob)}
    packed = {str(path.relative_to(ROOT)) for path in data}
    tracked = ["git", "ls-files", "--", "cgh_bench", "pretrain", "transfer_configs"]
    files = subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    expected = [path if path.startswith("cgh_bench/") else f"cgh_bench/{path}" for path in files]
    links = ("cgh_bench/pretrain", "cgh_bench/transfer_configs")
    assert [
        path
        for path in expected
        if path not in packed and path not in links
        if not (path.endswith(".py") and path.rpartition("/")[0] in packages)
    ] == []
