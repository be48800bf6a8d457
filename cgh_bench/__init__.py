"""Pretrain, convert, evaluate and compare vision backbones."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgh_bench.api import Features, Results, certify, convert, evaluate, features, list_tasks, load, wrap
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data.preprocessing import Preprocessing
    from cgh_bench.data.transform import EvalTransform
    from cgh_bench.report.comparison import compare
    from cgh_bench.results import Result

__version__ = "0.1.0"
__all__ = [
    "Checkpoint",
    "EvalTransform",
    "Features",
    "Preprocessing",
    "Result",
    "Results",
    "certify",
    "compare",
    "convert",
    "evaluate",
    "features",
    "list_tasks",
    "load",
    "wrap",
]
_ELSEWHERE = {
    "Checkpoint": "checkpoint",
    "Preprocessing": "data.preprocessing",
    "EvalTransform": "data.transform",
    "compare": "report.comparison",
    "Result": "results",
}


def __getattr__(name: str) -> Any:
    """A name is imported when it is first used: `import cgh_bench` alone takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
