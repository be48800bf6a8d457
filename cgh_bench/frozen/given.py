"""Features that are brought along in files, as a backbone and data that need no images; and writing such files."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, chosen
from cgh_bench.checkpoint import Checkpoint, Origin
from cgh_bench.core.errors import UserError, one_line
from cgh_bench.core.files import order_metadata, replacing, sha256
from cgh_bench.core.saved import load_arrays
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.preprocessing import Preprocessing
from cgh_bench.frozen.features import GivenFeatures
from cgh_bench.networks.base import Backbone

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".npz", ".npy", ".safetensors", ".parquet")


@dataclass(frozen=True)
class Unknown(Architecture):
    """Whatever computed the features of some files."""

    GENERIC: ClassVar[bool] = True

    name: str
    features: str
    """SHA-256 of the files."""
    dim: int

    def targets(self, feature: str) -> tuple[str, ...]:
        """There is one feature."""
        return chosen("feature of files with features", feature, (GLOBAL_FEATURE,))

    def build(self) -> "NoBackbone":
        """A stand-in that has a width and computes nothing."""
        return NoBackbone(self)


class NoBackbone(Backbone):
    """What stands for the network that is not there."""

    def __init__(self, architecture: Unknown) -> None:
        super().__init__()
        self.architecture, self.stages = architecture, {}

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return int(self.architecture.dim)  # type: ignore[attr-defined]

    def global_and_pyramid(self, images: "Tensor") -> "tuple[Tensor, dict[str, Tensor]]":
        """See `Backbone.global_and_pyramid`.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.architecture.name} has no backbone; this task needs a checkpoint")


def from_files(train: Path, val: Path) -> tuple[Checkpoint, DataPair]:
    """Features in two files (see `read_features`) as a checkpoint and data that tasks on frozen features take.

    Raises:
        UserError: a file is not what it must be, or the two do not fit each other.
    """
    sets = [read_features(path) for path in (train, val)]
    widths = [images.features.shape[1] for images in sets]
    if widths[0] != widths[1]:
        raise UserError(f"{train} has features of width {widths[0]}, {val} of {widths[1]}")
    hashes = "+".join(sha256(path) for path in (train, val))
    architecture = Unknown(f"{train.name},{val.name}", hashes, widths[0])
    origin = Origin("features", f"{train},{val}", hashes)
    checkpoint = Checkpoint(f"{train.stem} (features without a backbone)", architecture, {}, Preprocessing(), origin)
    return checkpoint, DataPair(train.stem, *sets)


def read_features(path: Path) -> GivenFeatures:
    """The features (N, D) and labels in a file.

    `.npz` and `.safetensors`: `features`, `labels` and, if the classes have names, `classes`; `.npy`: the features,
    with the labels in `NAME.labels.npy`; `.parquet`: columns `feature` (a list each), `label` and maybe `path`.
    Labels are whole numbers from 0, or (N, C) of 0 and 1.

    Raises:
        UserError: absent, of another format or content, or features that are not finite.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a feature file ending in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `cgh-bench features` writes one")
    try:
        found = _READERS[path.suffix](path)
        features, labels = np.asarray(found["features"]), np.asarray(found["labels"])
        names, paths = (tuple(map(str, found.get(name, ()))) for name in ("classes", "paths"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SystemError) as error:
        raise UserError(f"{path}: expected features and labels ({one_line(error)})") from None
    if features.ndim != 2 or features.dtype.kind != "f" or features.shape[:1] != labels.shape[:1]:
        raise UserError(
            f"{path}: features are {features.dtype} {features.shape}, labels {labels.shape}; expected floats (N, D) "
            "and (N,) or (N, C)"
        )
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: labels are {labels.dtype} {labels.shape}; expected whole numbers (N,) or (N, C)")
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise UserError(f"{path}: {len(broken)} rows contain NaN or infinity (first: row {broken[0]})")
    if labels.ndim == 1 and len(labels) and labels.min() != 0:
        raise UserError(f"{path}: labels go from {labels.min()} to {labels.max()}; they must start at 0")
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    classes = names or tuple(map(str, range(count)))
    return GivenFeatures(
        path.stem, classes, labels.astype(np.int64), sha256(path)[:16], features.astype(np.float32), paths
    )


def write_features(path: Path, features: NDArray[np.float32], labels: NDArray[np.int64], **more: Iterable[str]) -> None:
    """Write what `read_features` reads; `more` are `classes` and `paths`.

    Raises:
        UserError: the name ends in none of the formats.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the name must end in {' or '.join(SUFFIXES)}")
    texts = {name: list(values) for name, values in more.items()}
    with replacing(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {name: np.array(text) for name, text in texts.items()}
            np.savez(temporary, features=features, labels=labels, **arrays)
        elif path.suffix == ".npy":
            np.save(temporary, features)
            with replacing(_labels_of(path)) as beside:
                np.save(beside, labels)
        elif path.suffix == ".safetensors":
            import safetensors.numpy

            numbers: dict[str, NDArray[Any]] = {"features": np.ascontiguousarray(features), "labels": labels}
            safetensors.numpy.save_file(numbers, temporary, {name: json.dumps(text) for name, text in texts.items()})
            order_metadata(temporary)
        else:
            pyarrow, parquet = _pyarrow()
            columns = {"feature": list(features), "label": list(labels)}
            columns |= {"path": texts["paths"]} if "paths" in texts else {}
            table = pyarrow.table(columns).replace_schema_metadata({"classes": json.dumps(texts.get("classes"))})
            parquet.write_table(table, temporary)


def _labels_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.labels.npy")


def _npy(path: Path) -> dict[str, Any]:
    return {"features": load_arrays(path)[""], "labels": load_arrays(_labels_of(path))[""]}


def _safetensors(path: Path) -> dict[str, Any]:
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            texts = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if text.startswith("[")}
            return {name: file.get_tensor(name) for name in file.keys()} | texts  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(error) from None


def _parquet(path: Path) -> dict[str, Any]:
    _, parquet = _pyarrow()
    table = parquet.read_table(path)
    found = {"features": np.stack(table["feature"].to_numpy()), "labels": np.array(table["label"].to_pylist())}
    found |= {"paths": table["path"].to_pylist()} if "path" in table.column_names else {}
    classes = json.loads((table.schema.metadata or {}).get(b"classes", b"null"))
    return {**found, "features": found["features"].astype(np.float32)} | ({"classes": classes} if classes else {})


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("parquet needs pyarrow: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet


_READERS = {".npz": load_arrays, ".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}
