"""What every labelled set of images looks like to the rest of the package, and the entries of the catalogue."""

import hashlib
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import resources
from cgh_bench.core.errors import UserError, one_line
from cgh_bench.data.groups import Groups
from cgh_bench.data.layout import SUBSET, require_original
from cgh_bench.data.transform import TRANSFER, EvalTransform

SHARED_MEMORY = Path("/dev/shm")
"""Through which the processes of a loader hand over batches."""

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val"]


class Images(Protocol):
    """`N` images that features are extracted from, whatever is known of them."""

    @property
    def name(self) -> str:
        """Dataset and split ("animals/train")."""
        ...

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when the content does."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether images are decoded already, so that reading them takes no time."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def called(self, index: int) -> str:
        """What a message calls image `index`."""
        ...

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB, or a `UserError` that names its file."""
        ...


@dataclass(frozen=True, eq=False)
class ImageSet(ABC):
    """`N` labelled images, read one at a time. `name` is dataset and split ("animals/train")."""

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    """(N,) indices into `classes`; of a multi-label set (N, C): 1 present, 0 absent, -1 not counted."""
    held_out: NDArray[np.int64] | None = field(default=None, kw_only=True)
    """Rows of a train split that the set's authors set apart to choose hyper-parameters on."""
    groups: Groups | None = field(default=None, kw_only=True)
    """The group of each image, where the dataset says."""
    subset: str = field(default="", kw_only=True)
    """How much of the published data is there, if fewer images are meant (`layout.SUBSET`)."""

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise UserError(f"{self.name} has no images; at least one is needed")
        low, high = (-1, 1) if self.multi_label else (0, len(self.classes) - 1)
        if not low <= self.labels.min() <= self.labels.max() <= high:
            raise UserError(
                f"{self.name} has labels from {self.labels.min()} to {self.labels.max()}; expected {low} to {high}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when the images, the labels or the classes do; results record it."""

    @property
    def order(self) -> str:
        """Sixteen hex digits of which images these are, in order; what is computed from them does not enter."""
        return self.fingerprint

    @property
    def multi_label(self) -> bool:
        """Whether an image can show several classes."""
        return self.labels.ndim == 2

    @property
    def in_memory(self) -> bool:
        """Whether images are decoded already, so that reading them takes no time."""
        return False

    def called(self, index: int) -> str:
        """What a message calls image `index`."""
        return f"number {index}"

    def right(self, predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the predicted classes (N,), one for each image, are right, (N,)."""
        return predicted == self.labels

    @abstractmethod
    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB.

        Raises:
            UserError: the file behind it cannot be read; the message names the file.
        """


@dataclass(frozen=True, eq=False)
class Hashed(ImageSet):
    """Images whose fingerprint is computed when they are loaded."""

    content: str
    """The fingerprint: the hash of classes, labels and what the images are read from."""

    @property
    def fingerprint(self) -> str:
        """See `content`."""
        return self.content


@dataclass(frozen=True, eq=False)
class InMemory(Hashed):
    """Images that are held as one array."""

    pixels: NDArray[np.uint8]

    @property
    def in_memory(self) -> bool:
        """They are."""
        return True


class GreyImages(InMemory):
    """Images of one channel: `pixels` is (N, H, W) uint8, repeated to RGB when read."""

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8, its three channels equal."""
        import torch

        return torch.from_numpy(np.repeat(self.pixels[index][None], 3, axis=0))


class ColourImages(InMemory):
    """Images in colour: `pixels` is (N, 3, H, W) uint8."""

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB."""
        import torch

        return torch.from_numpy(self.pixels[index].copy())


@dataclass(frozen=True, eq=False)
class Subset(ImageSet):
    """The images `rows` (n,) of `whole`."""

    whole: ImageSet
    rows: NDArray[np.int64]

    @property
    def fingerprint(self) -> str:
        """The hash of the whole set and the rows."""
        return content_fingerprint((self.whole.fingerprint,), self.rows)

    def image(self, index: int) -> "Tensor":
        """The image in the whole set."""
        return self.whole.image(int(self.rows[index]))

    def called(self, index: int) -> str:
        """The name in the whole set."""
        return self.whole.called(int(self.rows[index]))


def subset(images: ImageSet, rows: NDArray[np.int64], what: str) -> ImageSet:
    """The images `rows` (n,) of `images`; `what` says in the name which they are. What is in memory stays there."""
    name, labels = f"{images.name} ({what})", images.labels[rows]
    groups = images.groups.some(rows) if images.groups else None
    if isinstance(images, InMemory):
        content = content_fingerprint((images.fingerprint,), rows)
        return type(images)(name, images.classes, labels, content, images.pixels[rows], groups=groups)
    return Subset(name, images.classes, labels, images, rows, groups=groups)


def share_of_classes(images: ImageSet, share: float, seed: int) -> NDArray[np.int64]:
    """The row numbers of a `share` (above 0, up to 1) of the images of every class, at least one of each, sorted."""
    order = np.random.default_rng(seed).permutation(len(images))
    rows = [order[images.labels[order] == label] for label in np.unique(images.labels)]
    return np.sort(np.concatenate([of_class[: max(1, round(share * len(of_class)))] for of_class in rows]))


VAL_SEED = 0
"""The seed by which val images are drawn: always the same, so that two people's numbers can be compared."""


def drawn_split(images: ImageSet, split: Split, share: float) -> ImageSet:
    """Train or val of images without a split: a `share` of every class, drawn by `VAL_SEED`, is val.

    Raises:
        UserError: a class has too few images for both.
    """
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if counts.min() < 2 or (np.round(share * counts) >= counts).any():
        name = images.classes[int(counts.argmin())]
        raise UserError(
            f"val_split={share:g} leaves a class of {images.name} without train images ({name!r} has "
            f"{counts.min()}); lower it, or remove the class"
        )
    rows = share_of_classes(images, share, VAL_SEED)
    if split == "train":
        rows = np.setdiff1d(np.arange(len(images)), rows)
    return subset(images, rows, f"{split}, val_split={share:g}, seed {VAL_SEED}")


@dataclass(frozen=True, eq=False)
class DataPair:
    """What is learned from, and what is reported: the two splits of a dataset, of the same classes."""

    name: str
    train: ImageSet
    val: ImageSet
    others: Mapping[str, ImageSet] = field(default_factory=dict, kw_only=True)
    """Images of other datasets that a task asks about too, by the names of the datasets."""

    def __post_init__(self) -> None:
        if self.train.classes != self.val.classes:
            of = {"train": set(self.train.classes), "val": set(self.val.classes)}
            odd = {"train": sorted(of["train"] - of["val"]), "val": sorted(of["val"] - of["train"])}
            told = "; ".join(f"only in {split}: {', '.join(names[:5])}" for split, names in odd.items() if names)
            raise UserError(f"train and val of {self.name} have different classes; {told or 'their order differs'}")

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of all the images together."""
        return fingerprint([images.fingerprint for images in self._all])

    @property
    def subset(self) -> str:
        """How much of the published data is there, if fewer images are meant."""
        return next((images.subset for images in self._all if images.subset), "")

    @property
    def _all(self) -> list[ImageSet]:
        return [self.train, self.val, *self.others.values()]


def workers(images: Images, batch_bytes: int, batches: int) -> int:
    """The number of processes of a loader of `batches` batches of `images`, each of which makes whole batches.

    They pay where files are decoded, not for images in memory, and not for a single batch.

    Each keeps two batches in shared memory, and one is in use. Where that is too small (64 MB in Docker), a process
    waits for ever for a batch that another could not hand over; so there are no more processes than fit, maybe none.
    """
    if images.in_memory or batches <= 1:
        return 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    asked = resources().workers
    wanted = max(1, (os.cpu_count() or 1) // here) if asked is None else asked
    if not SHARED_MEMORY.is_dir():
        return min(wanted, batches)
    free = shutil.disk_usage(SHARED_MEMORY).free
    fitting = max(0, (free // here // batch_bytes - 1) // 2)
    if fitting < wanted:
        print(
            f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, a batch {batch_bytes / 1e6:,.0f} MB: {fitting} instead of "
            f"{wanted} processes read {images.name}; docker run --shm-size=8g makes it faster",
            file=sys.stderr,
        )
    return min(wanted, fitting, batches)


def content_fingerprint(classes: tuple[str, ...], *arrays: NDArray[Any]) -> str:
    """Sixteen hex digits of the class names and of the shape, type and values of each array."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class LabelledImages:
    """A catalogue entry for classification, kNN and pretraining; `load(split)` gives the images."""

    description: str
    source: str
    load: Callable[[Split], ImageSet]
    kind: Literal["classification"] = "classification"


@dataclass(frozen=True)
class FetchedImages:
    """A catalogue entry for classification whose files the user fetches: nothing is ever downloaded."""

    description: str
    source: str
    """Who published it, and who its split, transform and metric are taken from."""
    folder: str
    """Where its files lie, below `$CGH_DATA`."""
    needs: tuple[str, ...]
    """Files and folders that must be there, below `folder`."""
    how: str
    """What the user does to get them there."""
    read: Callable[[Path, Split, Path | None], ImageSet]
    """The images of a split of the set in this folder; hashes of files are remembered in the cache, if one is given."""
    counts: tuple[int, int] = (0, 0)
    """Images for training and for the report, as published; 0: not checked."""
    transform: EvalTransform = TRANSFER
    metric: Literal["top1", "class_balanced", "mAP"] = "top1"
    """What the literature reports of it: accuracy over images, its mean over classes, mean average precision."""
    kind: Literal["classification"] = "classification"
    only_val: bool = False
    """Whether there is nothing to learn from."""

    def load(self, root: Path, split: Split, cache: Path | None = None) -> ImageSet:
        """The images of one split below `root`.

        Raises:
            UserError: absent, incomplete or unreadable: what, where it is expected, how to get it.
        """
        if self.only_val and split == "train":
            raise UserError(f"{self.folder} has only evaluation images; use the tasks `…_shifted`")
        folder = root / self.folder
        absent = [path for path in self.needs if not (folder / path).exists()]
        if absent:
            raise UserError(f"{', '.join(absent)} expected in {folder} ($CGH_DATA is {root}); to get it: {self.how}")
        require_original(folder)
        try:
            images = self.read(folder, split, cache)
        except UserError:
            raise
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            raise UserError(f"{folder} is damaged ({one_line(error)}); to get it: {self.how}") from None
        published = self.counts[split == "val"]
        if published not in (0, len(images)) and not (folder / SUBSET).exists():
            raise UserError(
                f"{images.name} in {folder} has {len(images)} images, {published} were published (to use fewer, "
                f"create an empty file {folder / SUBSET}); to get it: {self.how}"
            )
        if published in (0, len(images)):
            return images
        return replace(images, subset=f"{len(images):,} of {published:,} {split} images")


@dataclass(frozen=True)
class RelatedImages:
    """A catalogue entry of images that belong together in another way than by class; `load(root, cache)` gives them."""

    description: str
    source: str
    load: Callable[[Path, Path | None], Any]
    kind: Literal["correspondence", "retrieval", "video", "depth"]
    """Pairs with points, queries with a gallery, videos, or images with depth."""


@dataclass(frozen=True)
class DetectionScenes:
    """A catalogue entry for detection and segmentation; `write(folder)` makes (or finds) the files and returns it."""

    description: str
    source: str
    write: Callable[[Path], Path]
    kind: Literal["detection"] = "detection"
