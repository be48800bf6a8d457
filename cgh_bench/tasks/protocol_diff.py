"""What a protocol is in each framework, once built: each describes its own in a process, and the facts are compared."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgh_bench import tasks
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import failure, frameworks
from cgh_bench.tasks.transfer import Transfer, in_framework

Facts = Mapping[str, Any]
"""By name, `model / RPN / overlap of NMS`; the values are numbers, texts, None or lists of them."""


@dataclass(frozen=True)
class Difference:
    """A fact that is not the same in every framework."""

    fact: str
    values: tuple[Any, ...]
    """In the order of the frameworks; None where one has no such fact."""


def facts(name: str, framework: str = "") -> Facts:
    """What the task's protocol builds in `framework`, or in its own where that is left out.

    Raises:
        UserError: no such task, not in that framework, the framework is not installed or cannot describe this protocol.
    """
    task = tasks.find(in_framework(name, framework) if framework else name)
    if not isinstance(task, Transfer):
        raise UserError(f"{name} runs in no framework; only detection and segmentation do")
    known = frameworks.find(task.framework)
    frameworks.require_installed(task.framework)
    file = frameworks.protocol_file(task.framework, task.protocol)
    command = [*known.command("describe"), f"--config={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=known.environment)
    if done.returncode:
        raise UserError(f"{task.framework} cannot describe {task.protocol}: {failure.reason(done.stderr)}")
    return dict(_flat(json.loads(done.stdout.splitlines()[-1])))


def differences(described: Sequence[Facts]) -> list[Difference]:
    """The facts that differ, in their order."""
    names = dict.fromkeys(fact for one in described for fact in one)
    rows = (Difference(name, tuple(one.get(name) for one in described)) for name in names)
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for key, value in node.items():
        yield from _flat(value, f"{path} / {key}" if path else key)
