"""Detection and segmentation tasks: a protocol file of a framework, on a dataset, for backbones of one architecture."""

import contextlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from cgh_bench import results
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.progress import duration
from cgh_bench.core.registry import registered
from cgh_bench.data import is_known
from cgh_bench.data.dense import DenseData, Kind, Own
from cgh_bench.data.own.find import locate
from cgh_bench.foreign import failures, frameworks, process
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders, Metric, Task

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.outcomes import Outcomes

SECONDS_PER_STEP = {
    "voc_det": 0.537,
    "coco_det": 0.575,
    "coco_det_2x": 0.575,
    "coco_fpn": 0.261,
    "coco_fpn_4conv1fc": 0.371,
    "coco_retinanet": 0.200,
    "cityscapes_inst": 0.240,
    "coco_keypoints": 0.315,
    "coco_keypoints_2x": 0.315,
}
"""On eight V100s: facebookresearch/detectron2 (commit 02478d2) MODEL_ZOO.md, the nearest network of each protocol."""
GPUS_OF_THE_ZOO = 8
CARRIED = ("any", "single-scale", "multi-scale")
"""The kinds of backbones that are carried; `carried.KINDS` says what they are."""
GIGABYTES = 1.0
"""The size of a run's folder: state (weights and momenta of at most 60 million parameters), weights, predictions."""
STATED = {"iterations": ("iterations", "SOLVER.MAX_ITER"), "batch": ("batch_size", "SOLVER.IMS_PER_BATCH")}
"""The settings of the frameworks with the numbers of steps and of images in a step."""
Facts = Mapping[str, Any]
"""Values by name, such as `model / RPN / overlap of NMS`: numbers, strings, None or lists of them."""


@dataclass(frozen=True, kw_only=True)
class Transfer(Task[DenseData]):
    """Fine-tune a network with the checkpoint's backbone and evaluate it, in a process of the framework."""

    METRICS: ClassVar[tuple[Metric, ...]]
    DERIVED: ClassVar = ("definition",)
    ANNOTATED: ClassVar[Kind]
    """Which annotations of the user's own data it is trained on."""

    data: str
    protocol: str
    """The name of the file, in the framework's folder of protocols, that defines everything else."""
    framework: str
    arch: str
    """The only architecture that the protocol is for, whose weights are converted; or which kind of backbone it takes
    (`any`, `single-scale`, `multi-scale`), each carried into the framework as it is."""
    iterations: int | None = None
    """None: as many as in the protocol; otherwise its schedule is rescaled."""
    settings: tuple[str, ...] = ()
    """`key=value` under the framework's names; overrides the protocol's values."""

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise UserError(f"iterations={self.iterations} must be a positive integer")
        for setting in self.settings:
            key, equals, _ = setting.partition("=")
            if not (key and equals):
                raise UserError(f"settings={setting} must be key=value,…; a list is [1,2]")

    @property
    def definition(self) -> str:
        """The content of the protocol file, as sixteen hex digits; see `frameworks.definition`."""
        return frameworks.definition(self.framework, self.protocol)

    def load_data(self, cache: Path) -> DenseData:
        """The place of the dataset, or of the user's own. Checks first that the framework is installed."""
        frameworks.require_installed(self.framework)
        if is_known(self.data) and self.data not in (mine := _data_of(self.framework, self.protocol)):
            raise UserError(f"{self.protocol} runs on {' or '.join(mine)} or your own folder, not on {self.data}")
        return locate(self.data, self.ANNOTATED, cache)

    @property
    def steps(self) -> int:
        """The steps of the training; with another batch, as many images are seen."""
        published = (stated(self.framework, self.protocol, what) for what in ("iterations", "batch"))
        return self.iterations or round(math.prod(published) / max(1, self.batch))

    @property
    def batch(self) -> int:
        """The images of a step, over all processes."""
        given = dict(setting.partition("=")[::2] for setting in self.settings)
        text = next((given[name] for name in STATED["batch"] if name in given), "")
        return int(text) if text.isdecimal() else stated(self.framework, self.protocol, "batch")

    def open_fields(self, data: str) -> tuple[str, ...]:
        """On data of the user's own no schedule is published, from which another could differ."""
        return ("data", "iterations", "settings") if data != self.data else ()

    @property
    def is_carried(self) -> bool:
        """Whether our backbone itself is put into the framework's network."""
        return self.arch in CARRIED

    def check_backbone(self, checkpoint: "Checkpoint") -> None:
        """Refuse a checkpoint of another architecture than the protocol's."""
        from cgh_bench.backbones.resnet import ResNet

        given = checkpoint.architecture
        if self.is_carried:
            from cgh_bench.transfer_configs.contract import carried

            carried.require(given, self.arch, self.protocol)
        elif given not in (ResNet(self.arch), ResNet(self.arch, stride_in_1x1=True)):
            others = " or ".join(self._carrying(checkpoint)) or "another task"
            raise UserError(
                f"{self.protocol} is for {self.arch} as torchvision or MSRA build it, but {checkpoint.name} is a "
                f"{given.name}; use {others} (cgh-bench list tasks)"
            )

    def _carrying(self, checkpoint: "Checkpoint") -> Iterator[str]:
        """The tasks on the same data that carry such a backbone."""
        for name, task in registered("cgh_bench.tasks", "TASKS").items():
            same = isinstance(task, Transfer) and (task.data, task.framework) == (self.data, self.framework)
            if same and task.is_carried:
                with contextlib.suppress(UserError):
                    task.check_backbone(checkpoint)
                    yield name

    def plan(self, checkpoint: "Checkpoint", data: DenseData, folders: Folders) -> list[str]:
        """Time and disk that `run` will take. The framework is asked whether it accepts the settings."""
        self.check_backbone(checkpoint)
        gpus = folders.launch.processes()
        self._require_divisible(gpus)
        if self.settings:
            described(self)
        place = next(path for path in (folders.run, *folders.run.parents) if path.exists())
        free = shutil.disk_usage(place).free / 1e9
        parameters = sum(tensor.numel() for tensor in checkpoint.weights.values())
        needed = GIGABYTES * max(1, (parameters + 35e6) / 60e6)  # heads and necks have about 35 million
        short = ": NOT ENOUGH" if free < needed else ""
        return [
            self._time(data, folders, gpus),
            *self._epochs(data),
            f"disk: up to {needed:.0f} GB in {folders.run}, {free:.0f} GB free{short}",
        ]

    def _require_divisible(self, gpus: int) -> None:
        from cgh_bench.transfer_configs.contract.processes import images_per_process

        try:
            images_per_process(self.batch, max(1, gpus))
        except SystemExit as error:  # what the framework's process would end with
            raise UserError(f"{self.protocol}: {error}") from None

    def _epochs(self, data: DenseData) -> list[str]:
        """How often images of the user's own are seen: the protocols' schedules are made for large datasets."""
        if not isinstance(data, Own):
            return []
        times = f"{self.steps * self.batch / data.images:,.0f} times"
        return [f"schedule: {self.steps:,} steps of {self.batch} images, each of yours {times}; --set iterations=N"]

    def _time(self, data: DenseData, folders: Folders, gpus: int) -> str:
        records, _ = results.read(folders.cache.with_name("results.jsonl"))
        earlier = [record.seconds for record in records if record.protocol == folders.run.parent.name]
        if earlier:
            return (
                f"time: about {duration(median(earlier))}, as in {len(earlier)} earlier run{'s' * (len(earlier) > 1)}"
            )
        if isinstance(data, Own) or self.protocol not in SECONDS_PER_STEP:
            return "time: unknown until the first run"
        seconds = SECONDS_PER_STEP[self.protocol] * self.steps
        here = f"{duration(seconds * GPUS_OF_THE_ZOO / gpus)} on {gpus} of them" if gpus else "days to weeks on CPUs"
        return f"time: about {duration(seconds)} on eight V100s (detectron2's model zoo), {here}"

    def run(self, checkpoint: "Checkpoint", data: DenseData, folders: Folders, seed: int) -> dict[str, float]:
        """Fine-tune and evaluate; `folders.run` then has every metric in `metrics.json`, and the predictions.

        Raises:
            UserError: the protocol is for another architecture, or the framework failed.
            CheckFailed: not all weights arrived.
        """
        from cgh_bench.converters.base import find as find_converter
        from cgh_bench.foreign import carriage

        self.check_backbone(checkpoint)
        self._require_divisible(folders.launch.processes())
        job = process.Job(
            framework=self.framework,
            protocol=self.protocol,
            seed=seed,
            iterations=self.iterations,
            settings=self.settings,
            identity=fingerprint([replace(self, data="") if isinstance(data, Own) else self, data.train]),
            val=data.fingerprint,
            carried=self.is_carried,
        )
        write = carriage.write if self.is_carried else find_converter(frameworks.find(self.framework).converter).write
        metrics = process.run(job, checkpoint, lambda path: write(checkpoint, path), data, folders.run, folders.launch)
        found = {metric.name: metrics[metric.name] for metric in self.METRICS}
        if outcomes := self.outcomes(data, folders.run):
            folders.keep(outcomes)
        return found

    def outcomes(self, data: DenseData, run: Path) -> "Outcomes | None":
        """What the finished run in the folder `run` answered for each image; None where that is not known."""
        return None

    def versions(self, folders: Folders) -> dict[str, str]:
        """The packages that the framework's process used, perhaps in another environment, with their versions."""
        path = folders.run / "versions.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def stated(framework: str, protocol: str, what: str) -> int:
    """The number that a protocol file, or the one that it is based on, states under a name of `STATED`.

    Raises:
        UserError: no such file.
    """
    text = frameworks.protocol_file(framework, protocol).read_text(encoding="utf-8")
    names = "|".join(name.rpartition(".")[2] for name in STATED[what])
    number = re.search(rf"^ *(?:{names}) *[=:] *([\d_]+)", text, re.MULTILINE)
    (base, *_) = (*frameworks.NAMES_ITS_BASE.findall(text), "")
    return int(number[1]) if number else stated(framework, base, what)


def _data_of(framework: str, protocol: str) -> list[str]:
    """The datasets that a protocol is for."""
    known: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    mine = (task for task in known.values() if isinstance(task, Transfer))
    return list(dict.fromkeys(task.data for task in mine if (task.framework, task.protocol) == (framework, protocol)))


def in_framework(name: str, framework: str) -> str:
    """The name of the task that runs the protocol of task `name` in `framework`; it has its own id and results.

    Raises:
        UserError: no such task, or not in that framework.
    """
    task = _transfer_task(name, "--framework applies only to detection and segmentation tasks")
    known: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    variants = {
        other.framework: key
        for key, other in known.items()
        if isinstance(other, Transfer) and (other.protocol, other.data) == (task.protocol, task.data)
    }
    if framework not in variants:
        raise unknown(f"framework for {name}", framework, variants)
    return variants[framework]


def _transfer_task(name: str, rule: str) -> Transfer:
    task = find(name)
    if not isinstance(task, Transfer):
        raise UserError(f"{rule}; {name} is neither (cgh-bench list tasks)")
    return task


def facts(name: str, framework: str = "") -> Facts:
    """What the protocol of task `name` builds in `framework` (default: the task's own), as plain values.

    Raises:
        UserError: no such task, not in that framework, the framework is not installed or cannot describe this protocol.
    """
    name = in_framework(name, framework) if framework else name
    task = _transfer_task(name, "only detection and segmentation tasks can be described")
    frameworks.require_installed(task.framework)
    return flat(described(task))


def described(task: Transfer) -> dict[str, Any]:
    """What the framework builds for `task`, its settings applied.

    Raises:
        UserError: the framework refuses a setting, or cannot describe this protocol.
    """
    known = frameworks.find(task.framework)
    command = [*known.command("describe"), f"--config={frameworks.protocol_file(task.framework, task.protocol)}"]
    settings = ["--set", *task.settings] if task.settings else []
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False, env=known.environment)
    if done.returncode:
        raise UserError(f"{task.framework} cannot describe {task.protocol}: {failures.reason(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def flat(facts: Mapping[str, Any]) -> Facts:
    """Nested facts by joined names: `{"model": {"steps": 5}}` is `{"model / steps": 5}`."""
    return dict(_flat(facts, ""))


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for key, value in node.items():
        yield from _flat(value, f"{path} / {key}" if path else key)


def differences(described: Sequence[Facts]) -> dict[str, tuple[Any, ...]]:
    """The facts that are not the same in all frameworks, with the value in each; None if one has no such fact."""
    names = dict.fromkeys(fact for one in described for fact in one)
    rows = {name: tuple(one.get(name) for one in described) for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}
