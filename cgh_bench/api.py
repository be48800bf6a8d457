"""The Python API: what `import cgh_bench` provides. It prints nothing unless asked, and keeps no state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.files import scratch
from cgh_bench.core.progress import showing
from cgh_bench.data import DataPair, ImageSet, data_root, load_pair
from cgh_bench.data.transform import IMAGENET_KNN, EvalTransform
from cgh_bench.results import Result
from cgh_bench.workspace import Workspace

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data.preprocessing import Preprocessing
    from cgh_bench.evaluation import Evaluation

__all__ = ["Features", "Results", "certify", "convert", "evaluate", "features", "list_tasks", "load", "wrap"]

Model: TypeAlias = "str | Path | Checkpoint | Callable[..., Any]"
"""A name (see `cgh-bench list checkpoints`), a checkpoint, an `nn.Module`, or any function of images (B, 3, H, W)."""
Data: TypeAlias = "str | Path | ImageSet | DataPair | tuple[Any, Any]"
"""A dataset name; a folder; a pair (train, val) of folders, image sets or map-style datasets of (image, label); or one
such dataset and the share of every class to draw for val: `(dataset, 0.2)`."""
Pick: TypeAlias = "str | Callable[[Any], Any] | None"


class Results(tuple[Result, ...]):
    """Several results, shown as a table."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row per metric of each result.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_dataframe needs pandas: pip install pandas") from None
        rows = [
            {"checkpoint": r.checkpoint_name, "task": r.task, "metric": name, "value": value, "seed": r.seed,
             "protocol": r.protocol, "source": r.origin["source"]}
            for r in self
            for name, value in r.metrics.items()
        ]  # fmt: skip
        return pandas.DataFrame(rows)


@dataclass(frozen=True)
class Features:
    """The features of one set of images, in its order."""

    features: NDArray[np.float32]
    """(N, D)"""
    labels: NDArray[np.int64]
    """(N,) indices into `classes`, or (N, C) if multi-label."""
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    """The name of each image: its path, if it has one."""

    def __repr__(self) -> str:
        images, width = self.features.shape
        return f"Features of {images} images, {width} wide, {len(self.classes)} classes"


def load(  # noqa: PLR0913 (each is an independent choice)
    name: str | Path,
    reference: Path | None = None,
    *,
    source: str | None = None,
    branch: str | None = None,
    arch: str | None = None,
    settings: Sequence[str] = (),
    trust_pickle: bool = False,
    trust_code: bool = False,
) -> Checkpoint:
    """The checkpoint of that name.

    Args:
        name: a file of any known origin, a Hugging Face folder, published weights or a control (`cgh-bench list
            checkpoints` shows every form); what is published is downloaded unless its hub's cache has it.
        reference: what the file's own model computed (`cgh-bench reference`), which the checkpoint must compute, too.
        source: the origin, such as `moco`, whatever the file looks like (`cgh-bench list sources`).
        branch: which network of a file that has several, such as `teacher`; by default that of its origin.
        arch: the architecture, by timm's name, where the tensors do not determine it.
        settings: `name=value` for properties that tensors do not determine, such as `stem.padding=2`.
        trust_pickle: run the code that a pickled file names.
        trust_code: run the code of a `hub:` repository.

    Returns:
        Weights in float32 on the CPU, with the architecture, the preprocessing and the origin.

    Raises:
        UserError: there is no such checkpoint, none or several origins fit, or it is damaged or incomplete.
        CheckFailed: it computes something else than the reference.
    """
    from cgh_bench.reading import loading

    with showing(False):
        return loading.load(
            name,
            reference,
            source=source,
            branch=branch,
            arch=arch,
            settings=settings,
            trust_pickle=trust_pickle,
            trust_code=trust_code,
        )


def certify(
    model: Callable[..., Any],
    checkpoint: Model,
    prepare: Callable[[Any], Any] | None = None,
    image_size: int | tuple[int, int] = 224,
) -> Checkpoint:
    """Verify, layer by layer, that a checkpoint computes the same outputs as `model`, its network in memory.

    Args:
        model: an `nn.Module`.
        checkpoint: a name or a `Checkpoint`.
        prepare: what your own code does to an image after resizing and cropping: a PIL image to a tensor (3, H, W).
            Without it, the preprocessing is not compared.
        image_size: height and width in pixels of the images that both are given, or the side of a square.

    Returns:
        The checkpoint; its `origin.reach`, and that of results on it, is `origin`.

    Raises:
        CheckFailed: the outputs differ; the message names the cause if it is a known one.
    """
    from cgh_bench.reading import reference

    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    return reference.certified(_checkpoint(checkpoint), reference.record(model, prepare, size))[0]


def wrap(
    model: Callable[..., Any],
    preprocessing: str | Preprocessing = "imagenet",
    features: Pick = None,
    image_size: int | tuple[int, int] = 224,
) -> Checkpoint:
    """Wrap a model in memory as a checkpoint, to evaluate or (if its architecture is known) to convert it.

    The model is copied: `model` is not changed, and later changes to it have no effect.

    Args:
        model: an `nn.Module`, a method of one, or any function of images (B, 3, H, W).
        preprocessing: what the model expects: `imagenet`, `inception`, `clip`, `none` (pixels in [0, 1]), or a
            `Preprocessing`.
        features: how to get features (B, D) or maps (B, C, h, w): a key of the output, the name of a submodule, or a
            function of the output. By default the output itself.
        image_size: height and width in pixels of the images that the model is tried with, or the side of a square.

    Returns:
        The checkpoint; `origin.source` is `module` where the architecture is not a known one.

    Raises:
        UserError: the model does not return features; the message says what to pass as `features`.
    """
    from cgh_bench.reading.memory import from_memory

    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    return from_memory(model, preprocessing, features, size)


@overload
def evaluate(model: Model, tasks: str, data: Data | None = None, **options: Any) -> Result: ...


@overload
def evaluate(
    model: Model, tasks: Sequence[str] = ("knn", "linear"), data: Data | None = None, **options: Any
) -> Results: ...


def evaluate(  # noqa: PLR0913 (each is an independent choice)
    model: Model,
    tasks: str | Sequence[str] = ("knn", "linear"),
    data: Data | None = None,
    *,
    seed: int = 0,
    work: str | Path | None = None,
    store: bool = False,
    features: Pick = None,
    preprocessing: str | Preprocessing = "imagenet",
    progress: bool = False,
    **settings: Any,
) -> Result | Results:
    """Evaluate a model on tasks, like `cgh-bench eval`: the same protocols and the same records.

    Args:
        model: a name, a `Checkpoint`, an `nn.Module`, or any function of images; see `Model`.
        tasks: one or several task names (`cgh_bench.list_tasks()`).
        data: for tasks without a fixed dataset; see `Data`.
        seed: the evaluation seed.
        work: a folder for cached features and other files, reused by later calls. Default: a temporary folder.
        store: append the results to `work`/results.jsonl, and reuse finished ones from there.
        features: for a model in memory; see `wrap`.
        preprocessing: for a model in memory; see `wrap`.
        progress: show progress on standard error.
        **settings: fields of the tasks, such as `k=20` or `transform=EvalTransform(256, 224)`. `transform="hub"` uses
            the resize and crop of the hub that published the weights.

    Returns:
        The result of the task, or the results of all tasks in their order.

    Raises:
        UserError: the model, the data or a setting does not fit the tasks.
        CheckFailed: a task's own verification failed.
    """
    from cgh_bench.evaluation import evaluate as run
    from cgh_bench.evaluation import find_finished, prepare

    if isinstance(tasks, str) and "," in tasks:
        raise UserError(f"tasks={tasks!r} names several tasks; give a list: {tasks.replace(' ', '').split(',')}")
    if store and work is None:
        raise UserError("store=True needs work=, the folder whose results.jsonl is appended to")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"seed={seed!r}; expected a whole number of at least 0")
    seed = int(seed)  # JSON has no NumPy integers
    is_named = data is None or isinstance(data, str | Path)
    with showing(progress), _workspace(work) as workspace:
        checkpoint = None if callable(model) else _checkpoint(model)
        given = _settings({**settings, "data": data} if is_named and data is not None else settings, checkpoint)
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        evaluations = prepare(names, workspace, given, None if is_named else _pair(data))
        if checkpoint is None:
            checkpoint = _checkpoint(model, preprocessing, features, _size(evaluations))
        elif features is not None:
            raise UserError(
                "features= is only for models in memory; for a checkpoint use feature=, such as feature='layer3'"
            )
        found = []
        for evaluation in evaluations:
            evaluation.task.check_backbone(checkpoint)
            done = find_finished(evaluation, checkpoint, seed, workspace) if store else None
            result = done or run(evaluation, checkpoint, seed, workspace, store=store)
            found.append(result if work is not None else replace(result, work=""))
    return found[0] if isinstance(tasks, str) else Results(found)


def features(  # noqa: PLR0913 (each is an independent choice)
    model: Model,
    data: Data,
    split: str = "val",
    *,
    feature: str = "layer4",
    transform: EvalTransform = IMAGENET_KNN,
    preprocessing: str | Preprocessing = "imagenet",
    progress: bool = False,
) -> Features:
    """The features of one split of a dataset as arrays.

    Args:
        model: see `Model`.
        data: see `Data`.
        split: `train` or `val`.
        feature: a feature name of the architecture (`layer4` is the global feature of every family).
        transform: resize and crop before the model's preprocessing.
        preprocessing: for a model in memory; see `wrap`.
        progress: show progress on standard error.

    Returns:
        N features of width D in float32, with labels, classes and paths, in the order of the images.

    Raises:
        UserError: see `evaluate`.
    """
    from cgh_bench.frozen.features import extract

    if split not in ("train", "val"):
        raise unknown("split", split, ("train", "val"))
    with showing(progress), scratch() as folder:
        pair = load_pair(str(data), data_root()) if isinstance(data, str | Path) else _pair(data)
        images = pair.train if split == "train" else pair.val
        height, width = transform(images.image(0)).shape[-2:]
        checkpoint = _checkpoint(model, preprocessing, image_size=(height, width))
        bank = extract(checkpoint, images, transform, feature, folder)
        rows = range(len(images))
        return Features(np.array(bank.features), images.labels, images.classes, tuple(map(images.called, rows)))


def convert(model: Model, to: str, out: str | Path, verify: bool = True) -> dict[str, Any]:
    """Convert a model for another framework, with proof that it computes the same outputs.

    Args:
        model: see `Model`; a model in memory must have a known architecture.
        to: a target (`cgh-bench list converters`).
        out: the file or folder to write.
        verify: compare the outputs of the target's own network with ours, stage by stage, on two images.

    Returns:
        The certificate as JSON values, which is also beside `out`: what was compared, and how far it agrees.

    Raises:
        UserError: the target is unknown or does not support the model.
        CheckFailed: the target's outputs differ.
    """
    from cgh_bench.converters.convert import convert as write

    with showing(False):
        return write(_checkpoint(model), to, Path(out), verify)


def list_tasks() -> dict[str, str]:
    """All tasks, with the first line of their descriptions."""
    from cgh_bench.core.registry import registered

    tasks = registered("cgh_bench.tasks", "TASKS")
    return {name: (type(task).__doc__ or "").splitlines()[0] for name, task in tasks.items()}


def _checkpoint(
    model: Model,
    preprocessing: str | Preprocessing = "imagenet",
    features: Pick = None,
    image_size: tuple[int, int] = (224, 224),
) -> Checkpoint:
    """The checkpoint that `model` is or names; a model in memory is wrapped as the other arguments say."""
    from cgh_bench.checkpoint import Checkpoint

    if isinstance(model, str | Path):
        return load(model)
    if callable(model):
        return wrap(model, preprocessing, features, image_size)
    if not isinstance(model, Checkpoint):
        from cgh_bench.reading.memory import not_a_model

        raise not_a_model(model)
    return model


def _pair(data: Any) -> DataPair:
    """Data in memory as train and val."""
    from cgh_bench.data.dataset import from_dataset, from_datasets, is_map_style
    from cgh_bench.data.folder import load_classes
    from cgh_bench.data.manifest import is_manifest, load_manifests

    if isinstance(data, DataPair):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise UserError(
            f"data is a {type(data).__name__}; expected a name, a folder, (train, val), or (dataset, share for val)"
        )
    train, val = data
    if isinstance(train, ImageSet) and isinstance(val, ImageSet):
        return DataPair(train.name.partition("/")[0], train, val)
    if isinstance(train, str | Path) and isinstance(val, str | Path):
        if is_manifest(Path(train)) and is_manifest(Path(val)):
            return load_manifests(Path(train), Path(val))
        return DataPair(Path(train).name, *(load_classes(Path(folder), Path(folder).name) for folder in data))
    if is_map_style(train) and isinstance(val, float):
        return from_dataset(train, val)
    if is_map_style(train) and is_map_style(val):
        return from_datasets(train, val)
    raise UserError(f"data is a pair of {type(train).__name__} and {type(val).__name__}; both must have the same type")


@contextlib.contextmanager
def _workspace(work: str | Path | None) -> Iterator[Workspace]:
    if work is not None:
        yield Workspace(Path(work))
        return
    with scratch() as folder:
        yield Workspace(folder)


def _settings(settings: Mapping[str, Any], checkpoint: Checkpoint | None) -> list[str]:
    """Settings in the command line's form."""
    found = []
    for name, value in settings.items():
        if (name, value) == ("transform", "hub"):
            from cgh_bench.reading.loading import hub_settings

            if checkpoint is None:
                raise UserError('transform="hub" needs the name of published weights, not a model in memory')
            found += hub_settings(checkpoint)
        elif is_dataclass(value) and not isinstance(value, type):
            found += _settings({f"{name}.{f.name}": getattr(value, f.name) for f in fields(value)}, checkpoint)
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            found.append(f"{name}={text}")
    return found


def _size(evaluations: Sequence[Evaluation]) -> tuple[int, int]:
    """Height and width of the images that the first of the evaluations gives a model."""
    task, data = evaluations[0].task, evaluations[0].data
    transform = getattr(task, "transform", None)
    if transform is None or not isinstance(data, DataPair):
        return 224, 224
    height, width = transform(data.train.image(0)).shape[-2:]
    return height, width
