"""Any map-style dataset of (image, label), such as a `torch.utils.data.Dataset`, as an image set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, Hashed, drawn_split

if TYPE_CHECKING:
    from torch import Tensor

KEPT_IN_MEMORY = 2 * 1024**3
"""Bytes of decoded images; of larger datasets, each image is read again when it is asked for."""


class MapStyle(Protocol):
    """What is asked of a dataset; its `classes`, if it has any, name the labels."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: int) -> Any:
        """The pair (image, label) number `index`, from 0."""
        ...


@dataclass(frozen=True, eq=False)
class DatasetImages(Hashed):
    """The images of a dataset."""

    dataset: MapStyle
    kept: "tuple[Tensor, ...]" = ()
    """The images, (3, H, W) uint8 each, where all are held in memory."""

    @property
    def in_memory(self) -> bool:
        """Whether `kept` has them."""
        return bool(self.kept)

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB."""
        return self.kept[index] if self.kept else _pixels(self.dataset[index][0], f"{self.name}[{index}]")


def from_datasets(train: MapStyle, val: MapStyle) -> DataPair:
    """Two datasets as what is learned from and what is reported.

    Every item is read once, for its label and for the fingerprint of the content.

    Args:
        train: items (image, label). An image is a PIL image, a uint8 tensor (3, H, W) or (1, H, W), or a uint8 array
            (H, W, 3) or (H, W). A label is a whole number from 0, or, for several classes per image, a vector of 0
            and 1. Without `train.classes` the classes are called by their numbers.
        val: the same, with the same classes.

    Raises:
        UserError: items or labels of another kind; the first is named.
    """
    read = [_read(dataset, name) for dataset, name in ((train, "train"), (val, "val"))]
    classes = _classes(train, [labels for labels, _, _ in read])
    sets = (
        DatasetImages(f"{_name(train)}/{split}", classes, labels, _with_classes(content, classes), dataset, kept)
        for split, dataset, (labels, content, kept) in zip(("train", "val"), (train, val), read, strict=True)
    )
    return DataPair(_name(train), *sets)


def from_dataset(dataset: MapStyle, share: float) -> DataPair:
    """One dataset, of which a `share` of every class is drawn for val by a fixed seed; see `from_datasets`."""
    if not 0 < share < 1:
        raise UserError(f"the val share is {share:g}; expected a number between 0 and 1")
    labels, content, kept = _read(dataset, _name(dataset))
    classes = _classes(dataset, [labels])
    whole = DatasetImages(_name(dataset), classes, labels, _with_classes(content, classes), dataset, kept)
    return DataPair(whole.name, drawn_split(whole, "train", share), drawn_split(whole, "val", share))


def is_map_style(data: object) -> bool:
    """Whether it has a length and items by number."""
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, str | dict)


def _name(dataset: MapStyle) -> str:
    return type(dataset).__name__


def _read(dataset: MapStyle, name: str) -> "tuple[NDArray[np.int64], bytes, tuple[Tensor, ...]]":
    """Labels, a hash of images and labels, and the images if they fit into memory."""
    digest, labels, kept, size = hashlib.sha256(), [], [], 0
    for index in range(len(dataset)):
        called = f"{name}[{index}]"
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(f"{called} is a {type(item).__name__}, not a pair (image, label)")
        pixels, label = _pixels(item[0], called), _label(item[1], called)
        digest.update(f"{tuple(pixels.shape)}{label}".encode())
        digest.update(pixels.contiguous().numpy().data)
        labels.append(label)
        size += pixels.numel()
        if size <= KEPT_IN_MEMORY:
            kept.append(pixels)
    if len({np.shape(label) for label in labels}) > 1:
        raise UserError(f"{name}: labels must be all numbers, or all vectors of one length")
    return np.array(labels, dtype=np.int64), digest.digest(), tuple(kept) if size <= KEPT_IN_MEMORY else ()


def _pixels(image: Any, called: str) -> "Tensor":
    """An image as (3, H, W) uint8."""
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = torch.from_numpy(image if image.ndim == 2 else image.transpose(2, 0, 1))
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim in (2, 3):
        image = image.cpu() if image.ndim == 3 else image.cpu()[None]
        if len(image) in (1, 3):
            return image.expand(3, -1, -1)
    is_array = isinstance(image, np.ndarray | torch.Tensor)
    what = f"{type(image).__name__}" + (f" of {image.dtype}, {tuple(image.shape)}" if is_array else "")
    raise UserError(
        f"the image of {called} is a {what}; expected a PIL image, a uint8 tensor (3, H, W) or a uint8 array "
        "(H, W, 3): leave out the dataset's own transform"
    )


def _label(label: Any, called: str) -> "int | tuple[int, ...]":
    values = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(values, int):
        return int(values)
    if isinstance(values, list | tuple) and values and all(value in (0, 1) for value in values):
        return tuple(int(value) for value in values)
    raise UserError(
        f"the label of {called} is {label!r}; expected an integer from 0, or a vector of 0 and 1 (multi-label)"
    )


def _classes(dataset: MapStyle, labels: Sequence[NDArray[np.int64]]) -> tuple[str, ...]:
    """The dataset's own classes, or the numbers that its labels use."""
    if any(not len(each) for each in labels):
        raise UserError("a dataset is empty; expected at least one item")
    named = getattr(dataset, "classes", None)
    if labels[0].ndim == 2:
        count = labels[0].shape[1]
    else:
        low, high = (int(edge([edge(each) for each in labels])) for edge in (np.min, np.max))
        if low != 0:
            raise UserError(f"the labels go from {low} to {high}; they must start at 0: subtract {low}")
        count = high + 1
    if named is None:
        return tuple(map(str, range(count)))
    if len(named) < count:
        raise UserError(f"the labels go up to {count - 1}, but there are {len(named)} classes; labels start at 0")
    return tuple(map(str, named))


def _with_classes(content: bytes, classes: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(classes).encode() + content).hexdigest()[:16]
