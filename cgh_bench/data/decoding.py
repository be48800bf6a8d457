"""Any file of an image as 8-bit RGB, each oddity treated in one stated way."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cgh_bench.core.errors import UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor

UNDECODABLE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, MemoryError,
    struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for files that are damaged, or no images."""
SIXTEEN_BITS = 2**14, 2**16 - 1
"""Between these the largest pixel of a 16-bit image lies; else it may hold 8 to 14 bits, and would turn black."""


def read_image(path: Path) -> "Tensor":
    """The image in a file as (3, H, W) uint8 RGB; see `decode`."""
    try:
        with path.open("rb") as file:
            return decode(file, str(path))
    except OSError as error:
        raise _undecodable(str(path), error) from None


def decode(file: BinaryIO, name: str) -> "Tensor":
    """The image in an open file as (3, H, W) uint8 RGB, turned as its EXIF orientation says; channels last in memory.

    Grey, palette, CMYK and 16-bit images are converted (16 bits by their upper 8); an alpha channel is dropped.

    Raises:
        UserError: it cannot be decoded whole, has several frames, pixels of unknown range, or more of them than
            Pillow opens (179 million: what says it has more is most likely made to fill the memory).
    """
    try:
        with Image.open(file) as image:
            # A phone's JPEG with a second, embedded picture (MPO) is still one image: its first.
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise UserError(f"{name} has {frames} frames; extract them to one image per file")
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_to_rgb(image, name))
    except UserError:
        raise
    except UNDECODABLE as error:
        raise _undecodable(name, error) from None
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_values(path: Path) -> NDArray[Any]:
    """The pixels of a map, (H, W) or (H, W, C), as its file has them.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            return np.asarray(file)
    except UNDECODABLE as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); replace it") from None


def _undecodable(name: str, error: Exception) -> UserError:
    known = not isinstance(error, UnidentifiedImageError)  # whose text is the address of an object in memory
    why = one_line(error) if known else "unknown format"
    return UserError(f"{name} is not a readable image ({why}); replace or remove it")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise UserError(f"{name} has floating-point pixels of unknown range; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or not (grey.max() == 0 or SIXTEEN_BITS[0] <= grey.max() <= SIXTEEN_BITS[1]):
            raise UserError(
                f"{name} has integer pixels from {grey.min()} to {grey.max()}, an ambiguous range (for 16 "
                "bits, 0 to 65535 is expected); save it with 8 bits per channel"
            )
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy
