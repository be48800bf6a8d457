"""What detection and segmentation tasks have in common: a protocol file of a framework, on a data set, for a trunk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench.backbones.resnet import require_resnet
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered
from cgh_bench.data.dense import Located, locate
from cgh_bench.foreign import frameworks, process
from cgh_bench.tasks import estimate, find
from cgh_bench.tasks.base import Folders, Metric, Task

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Transfer(Task[Located]):
    """Fine-tune a whole network on the trunk and evaluate it, in a process of the framework."""

    METRICS: ClassVar[tuple[Metric, ...]]

    data: str
    protocol: str
    """The file that defines all the rest, in the framework's folder below `transfer_configs`."""
    framework: str
    arch: str
    """The only architecture that the protocol is for."""
    iterations: int | None = None
    """None: as many as the protocol says; else its schedule is stretched."""
    settings: tuple[str, ...] = ()
    """`key=value` in the framework's own words, over the protocol's."""
    definition: str = field(init=False)
    """What the protocol file says, as sixteen hex digits."""

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise UserError(f"iterations={self.iterations}: a number of 1 or more is accepted")
        for setting in self.settings:
            key, equals, _ = setting.partition("=")
            if not (key and equals):
                raise UserError(f"settings={setting}: key=value,… is accepted, a list as [1,2]")
        object.__setattr__(self, "definition", frameworks.definition(self.framework, self.protocol))

    def load_data(self, cache: Path) -> Located:
        """Where the dataset is. Checks first that the framework is installed."""
        frameworks.require_installed(self.framework)
        return locate(self.data, cache)

    def plan(self, checkpoint: "Checkpoint", data: Located, folders: Folders) -> list[str]:
        """Time and disk that it will take; refuses what `run` would."""
        self._require_its_trunk(checkpoint)
        return estimate.plan(self.protocol, self.iterations, folders)

    def run(self, checkpoint: "Checkpoint", data: Located, folders: Folders, seed: int) -> dict[str, float]:
        """Fine-tune and evaluate; `folders.run` then has every metric in `metrics.json`, and the predictions.

        Raises:
            UserError: the protocol is for another architecture, this is one of several processes, the data are
                absent, or the framework failed.
            CheckFailed: the weights did not all arrive.
        """
        self._require_its_trunk(checkpoint)
        if dist.world_size() > 1:
            raise UserError(f"{self.protocol} starts its own processes; run it without torchrun, with --gpus N")
        job = process.Job(
            framework=self.framework,
            protocol=self.protocol,
            seed=seed,
            iterations=self.iterations,
            settings=self.settings,
            identity=fingerprint([self, data.fingerprint]),
        )
        metrics = process.run(job, checkpoint, data.root, folders.run)
        return {metric.name: metrics[metric.name] for metric in self.METRICS}

    def _require_its_trunk(self, checkpoint: "Checkpoint") -> None:
        given = require_resnet(checkpoint.architecture, checkpoint.name)
        if given.name != self.arch or given.stem != "imagenet":
            raise UserError(
                f"{self.protocol} is a protocol for {self.arch} with ImageNet's stem; {checkpoint.name} is a "
                f"{given.name} with stem {given.stem}; give one of {self.arch}, or another task (cgh-bench list tasks)"
            )

    def versions(self, folders: Folders) -> dict[str, str]:
        """Of the packages that the framework's own process ran on, which may be in another environment than ours."""
        path = folders.run / "versions.json"
        said: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return said


def in_framework(name: str, framework: str) -> str:
    """The name of the task that is `name` in `framework`: each framework's has results, and an id, of its own.

    Raises:
        UserError: no such task, or not in that framework.
    """
    task = find(name)
    known: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    variants = {
        other.framework: key
        for key, other in known.items()
        if isinstance(task, Transfer) and isinstance(other, Transfer)
        if (other.protocol, other.data) == (task.protocol, task.data)
    }
    if not variants:
        raise UserError(f"{name} runs in no framework, so none can be chosen; leave out framework={framework}")
    if framework not in variants:
        raise unknown(f"framework of {name}", framework, variants)
    return variants[framework]
