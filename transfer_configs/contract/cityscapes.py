"""What Cityscapes' own evaluation of instances finds for each class; the frameworks' evaluators keep only the means."""

import contextlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def ap_by_class(module: ModuleType) -> Iterator[dict[str, float]]:
    """The AP of each class in percent that `module.evaluateImgLists` computes in this block; none without objects."""
    found: dict[str, float] = {}
    original = module.evaluateImgLists

    def recording(*given: Any, **named: Any) -> Any:
        results = original(*given, **named)
        classes = {name: 100 * float(aps["ap"]) for name, aps in results["averages"]["classes"].items()}
        found.update({name: ap for name, ap in classes.items() if math.isfinite(ap)})
        return results

    module.evaluateImgLists = recording  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        module.evaluateImgLists = original  # type: ignore[attr-defined]
