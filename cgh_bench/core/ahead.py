"""Work that a thread does ahead of its use."""

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The `items` in order, each made by a thread while the caller works on the one before.

    The thread is left alone if the caller stops, as an item may never come.
    """
    source, end = iter(items), object()
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def make() -> None:
        while wanted.get():
            try:
                made.put((next(source, end), None))
            except BaseException as error:  # is raised where the item is waited for
                made.put((end, error))

    threading.Thread(target=make, daemon=True).start()
    try:
        wanted.put(True)
        while True:
            item, error = made.get()
            if error:
                raise error
            if item is end:
                return
            wanted.put(True)
            yield item
    finally:
        wanted.put(False)
