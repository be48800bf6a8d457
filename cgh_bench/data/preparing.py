"""A copy of a folder with its large images made smaller, which slow disks and decoders deliver several times faster.

The pixels are other pixels, so the copy is another dataset: it is given as a folder (`--data`), and is refused under
the name of a published one.
"""

import io
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.core.progress import duration, progress
from cgh_bench.data.decoding import read_image
from cgh_bench.data.folder import SUFFIXES, files_below
from cgh_bench.data.layout import PREPARED

QUALITY = 95
"""The quality of JPEG files: at 95 their own error is far below that of the reduction."""
SAMPLED = 24
"""Images that a plan is made from."""
MOST_NAMED = 5


@dataclass(frozen=True)
class Preparation:
    """What is done to a folder: images whose shorter side is longer than `side` pixels get that side, others stay."""

    source: Path
    target: Path
    side: int

    def __post_init__(self) -> None:
        if self.side < 16:
            raise UserError(f"--side {self.side} is below 16 pixels, the smallest accepted")
        if not self.source.is_dir():
            raise UserError(f"no folder {self.source}; expected one with images")
        source, target = self.source.resolve(), self.target.resolve()
        if source == target or source in target.parents or target in source.parents:
            raise UserError(f"one of {self.target} and {self.source} contains the other; choose another folder")
        if target.is_dir() and any(target.iterdir()) and self._done_before() != self.said:
            raise UserError(
                f"{self.target} is not empty and not an unfinished copy of {source} with --side {self.side}; choose a "
                "folder that is empty or new"
            )

    @property
    def said(self) -> str:
        """What the copy says of itself."""
        return f"{self.source.resolve()}, images reduced to a shorter side of {self.side} px\n"

    def _done_before(self) -> str:
        marker = self.target / PREPARED
        return marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""

    def files(self) -> list[str]:
        """Every file of the folder, relative to it, sorted.

        Raises:
            UserError: none of them is an image, or some are tar shards.
        """
        found = sorted(files_below(self.source))
        if any(name.endswith(".tar") for name in found):
            raise UserError(f"{self.source} holds tar shards; only folders of image files can be reduced")
        if not any(map(_is_image, found)):
            raise UserError(f"no images in {self.source}; expected files {' '.join(SUFFIXES)}")
        return found

    def plan(self) -> str:
        """What would be made and how long it would take, from a few of the images."""
        names = self.files()
        images = [name for name in names if _is_image(name)]
        sample = images[:: -(-len(images) // SAMPLED)]
        start = time.perf_counter()
        before = [(self.source / name).stat().st_size for name in sample]
        after = [
            len(_encoded(self.source / name, self.side)) or size for name, size in zip(sample, before, strict=True)
        ]
        seconds = (time.perf_counter() - start) / len(sample) * len(images) / (os.cpu_count() or 1)
        mean = sum(after) / len(after)
        return (
            f"{len(images):,} images of {sum(before) / len(before) / 1e3:.0f} kB become {mean / 1e3:.0f} kB each, "
            f"{mean * len(images) / 1e9:.2f} GB in all, and {len(names) - len(images)} other files are copied; about "
            f"{duration(seconds)} on {os.cpu_count()} cores"
        )

    def run(self) -> int:
        """Make the copy, with all cores; files that are there already stay. The number of its files.

        Raises:
            UserError: images that cannot be read; all others are done.
        """
        from joblib import Parallel, delayed

        names = self.files()
        write_text(self.target / PREPARED, self.said)
        todo = [name for name in names if not (self.target / name).exists()]
        threads = Parallel(n_jobs=-1, backend="threading", return_as="generator_unordered")  # Pillow frees them
        jobs = (delayed(_one)(self.source / name, self.target / name, self.side) for name in todo)
        faults: list[str] = []
        with progress(f"preparing {self.source.name}", len(names)) as tick:
            tick(len(names) - len(todo))
            for number, fault in enumerate(threads(jobs), start=1):
                faults += [fault] if fault else []
                tick(len(names) - len(todo) + number)
        if faults:
            named = " | ".join(sorted(faults)[:MOST_NAMED])
            raise UserError(f"{len(faults)} images were skipped; replace them and run again: {named}")
        return len(names)


def _one(source: Path, target: Path, side: int) -> str:
    """Write one file of the copy; why not, where its image cannot be read."""
    try:
        content = _encoded(source, side) if _is_image(source.name) else b""
    except UserError as error:
        return str(error)
    with replacing(target, flush=False) as temporary:
        if content:
            temporary.write_bytes(content)
        else:
            shutil.copyfile(source, temporary)
    return ""


def _encoded(source: Path, side: int) -> bytes:
    """The reduced image in the format that its file's name says, without metadata; nothing if it is small enough."""
    from PIL import Image

    image = Image.fromarray(read_image(source).permute(1, 2, 0).numpy())
    scale = side / min(image.size)
    if scale >= 1:
        return b""
    width, height = (round(scale * length) for length in image.size)
    into = io.BytesIO()
    reduced = image.resize((width, height), Image.Resampling.BICUBIC)
    reduced.save(into, Image.registered_extensions()[source.suffix.lower()], quality=QUALITY)
    return into.getvalue()


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
