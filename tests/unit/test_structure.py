"""The direction of imports, and the house rules that a parser can check."""

import ast
import graphlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for folder in ("cgh_bench", "pretrain", "transfer_configs", "tools") for path in (ROOT / folder).rglob("*.py")
)
FRAMEWORKS = {"mmengine", "mmcv", "mmdet", "mmseg", "detectron2"}
SLOW_TO_IMPORT = {"sklearn", "scipy.optimize", "scipy.stats", "faiss", "pycocotools", "matplotlib"}
LAYERS = (
    # From the bottom: each room of cgh_bench may import from the layers before its own, and from itself.
    {"core"},
    {"networks"},
    {"backbones", "data", "published", "results", "workspace"},
    {"checkpoint", "outcomes"},
    {"bundles", "reading"},
    {"transfer_configs"},
    {"foreign"},
    {"converters", "frozen"},
    {"pretrain", "tasks"},
    {"evaluation"},
    {"api", "doctor", "importers", "report"},
    {"site"},
    {"explain", "reproduce", "suite"},
    {"cli"},
    {"__main__"},
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    """Every module that is imported below `cgh_bench`, where two folders of the top level are, too."""
    found = {}
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "tools":
            parts = parts if parts[0] == "cgh_bench" else ("cgh_bench", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    return ".".join(module.split(".")[1:2])


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The modules, and `module.name`, that the nodes import; what only annotations need (TYPE_CHECKING) is left out."""
    for node in nodes:
        if isinstance(node, ast.expr) or (isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(ast.iter_child_nodes(node))


@cache
def graph() -> dict[str, set[str]]:
    """What of ours each module imports, functions included."""
    edges = {}
    for module, path in modules().items():
        names = {name for name in imported(parsed(path).body) if name in modules()}
        # `from package import module` is an import of the module.
        edges[module] = {n for n in names if not any(other.startswith(f"{n}.") for other in names)} - {module}
    return edges


def test_every_room_has_its_layer():
    placed = [name for layer in LAYERS for name in layer]
    rooms = {room(module) for module in modules()} - {""}
    assert rooms - set(placed) == set(), "give it a layer"
    assert len(placed) == len(set(placed)) and set(placed) - rooms <= {"api"}


def test_imports_point_down():
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in sorted(others)
        if room(module) and room(other) and room(module) != room(other)
        if height[room(other)] >= height[room(module)]
    ] == []


def test_no_circle_of_modules():
    graphlib.TopologicalSorter(graph()).prepare()  # CycleError names it


def test_frameworks_are_imported_in_their_own_processes_only():
    assert [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        if "transfer_configs" not in path.parts
        for name in imported(parsed(path).body)
        if name.split(".")[0] in FRAMEWORKS
    ] == []


def test_only_who_needs_it_waits_for_a_slow_import():
    assert [
        f"{module} imports {name} when it is imported; do so in the function that needs it"
        for module, path in modules().items()
        if room(module) != "transfer_configs"
        for name in imported(node for node in parsed(path).body if isinstance(node, ast.Import | ast.ImportFrom))
        if name in SLOW_TO_IMPORT or name.split(".")[0] in SLOW_TO_IMPORT
    ] == []


def test_nothing_is_loaded_silently_or_unsafely():
    assert [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in _careless(path)] == []


def _name(node: ast.AST | None) -> str:
    """`b` of `b` and of `a.b`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _careless(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else node.type
            # A package that is imported to see whether it works may raise anything; a thread hands over whatever comes.
            if caught in (None, "Exception", "BaseException") and path.name not in (
                "ahead.py",
                "registry.py",
                "interpreter.py",
                "system.py",
            ):
                yield f"{node.lineno} catches everything"
        if isinstance(node, ast.Call) and _name(node.func) in ("load", "load_state_dict"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            called = ast.unparse(node.func)
            if called.endswith(".load_state_dict") and given.get("strict") == "False":
                yield f"{node.lineno} loads what fits"
            # pickles.py has the one door that --trust-pickle opens.
            only = given.get("weights_only")
            if called == "torch.load" and only != "True" and not (only and path.name == "pickles.py"):
                yield f"{node.lineno} unpickles"


def test_docstrings_say_their_noun():
    """ "The quality of JPEG files", not "Of JPEG files"."""
    assert [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in _headless(path)] == []


def _headless(path: Path) -> Iterator[int]:
    if '"Of ' not in path.read_text(encoding="utf-8"):
        return
    for node in ast.walk(parsed(path)):
        said = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
        if str(said).startswith("Of "):
            yield node.lineno


def test_the_design_page_draws_every_room():
    page = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    drawing, rooms = page.split("```")[1], page.split("## Modules")[1].split("##")[0]
    names = {name for layer in LAYERS for name in layer} - {"__main__"}
    assert [name for name in sorted(names) if name not in drawing or f"| `{name}` |" not in rooms] == []
