"""The direction of dependencies and the house rules that a parser can check."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cgh_bench", "pretrain", "transfer_configs", "tools")
OURS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FRAMEWORKS = {"mmengine", "mmcv", "mmdet", "mmseg", "detectron2"}
SLOW_TO_IMPORT = {"sklearn", "scipy.optimize", "scipy.stats", "faiss", "pycocotools", "matplotlib"}
LAYERS = (  # each may import from those after it, and from its own
    {"cgh_bench.cli", "cgh_bench.__main__"},
    {"cgh_bench.reproduce"},
    {"cgh_bench.report"},
    {"cgh_bench.evaluate"},
    {"cgh_bench.tasks"},
    {"cgh_bench.frozen", "cgh_bench.converters", "cgh_bench.foreign.process", "cgh_bench.converters.parity"},
    {"cgh_bench.checkpoint", "cgh_bench.reading"},
    {"cgh_bench.backbones.resnet"},
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    yield from imported_by(path, ast.walk(parsed(path)))


def imported_by(path: Path, nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    for number, members in enumerate(LAYERS):
        if any(module == member or module.startswith(f"{member}.") for member in members):
            return number
    return None


@pytest.mark.parametrize("path", OURS, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    mine = layer(module_name(path))
    for imported in imports(path):
        theirs = layer(imported)
        if mine is not None and theirs is not None:
            assert theirs >= mine, f"{path.name} imports {imported}, which is above it"
        top = imported.split(".")[0]
        if top == "pretrain":
            assert path.parts[-2] == "pretrain" or "pretrain" in path.parts or path.parts[-2] in ("cli", "tools"), path
        if top in FRAMEWORKS:
            assert "transfer_configs" in path.parts, f"{path} imports {imported}; frameworks are processes of their own"


@pytest.mark.parametrize("path", [path for path in OURS if "transfer_configs" not in path.parts], ids=module_name)
def test_only_who_needs_it_waits_for_a_slow_import(path: Path) -> None:
    whenever_imported = set(imported_by(path, parsed(path).body))
    known = whenever_imported | {name.split(".")[0] for name in whenever_imported}
    assert not known & SLOW_TO_IMPORT, "import it in the function that needs it"


@pytest.mark.parametrize("path", OURS, ids=module_name)
def test_no_silent_or_unsafe_loading(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else node.type
            assert caught not in (None, "Exception", "BaseException"), f"{path}:{node.lineno} catches everything"
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords}
            strict = keywords.get("strict")
            loads = isinstance(node.func, ast.Attribute) and node.func.attr == "load_state_dict"
            assert not (loads and isinstance(strict, ast.Constant) and strict.value is False), f"{path}:{node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                only = keywords.get("weights_only")
                safe = isinstance(only, ast.Constant) and only.value is True
                # The one door that `--trust-pickle` opens.
                assert safe or (only is not None and path.name == "safe_pickle.py"), f"{path}:{node.lineno}"
