"""A read-only live view of the site while results come in: rebuilt whenever the store has changed."""

import functools
import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import scratch
from cgh_bench.site import site

RELOAD = "\nsetTimeout(() => location.reload(), 60_000);\n"
"""Added to the script of served pages: what the reader chose is in the address, which the header `Refresh` forgets."""
MOST_CONNECTIONS = 64
SECONDS_FOR_A_REQUEST = 10
"""A connection that has sent nothing for so long is closed."""


class Site:
    """The pages in a folder, written again when the store has changed."""

    def __init__(self, store: Path, work: Path, folder: Path) -> None:
        self.store, self.work, self.folder = store, work, folder
        self._written_from: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Write the pages if the store has changed."""
        with self._lock:
            state = self._state()
            if state != self._written_from:
                site.write(self.store, self.work, self.folder)
                with (self.folder / "assets/page.js").open("a", encoding="utf-8") as script:
                    script.write(RELOAD)
                self._written_from = state

    def _state(self) -> tuple[int, int]:
        if not self.store.exists():
            return 0, 0
        found = self.store.stat()
        return found.st_size, found.st_mtime_ns


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of one folder by GET and HEAD, to requests for one of this server's own names."""

    timeout = SECONDS_FOR_A_REQUEST

    def __init__(self, *arguments: Any, pages: Site, names: frozenset[str]) -> None:
        self.pages, self.names = pages, names
        super().__init__(*arguments, directory=str(pages.folder))

    def send_head(self) -> Any:
        """Answer a GET or HEAD, unless it is for another host.

        Otherwise a page from elsewhere, whose name is made to resolve to this machine, could read the results (DNS
        rebinding). That takes a name, so an address is always accepted.
        """
        host = self.headers.get("Host", "").strip()
        name = (host.rpartition("]")[0] if host.startswith("[") else host.partition(":")[0]).strip("[").lower()
        if name not in self.names and not _is_address(name):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server answers only to its own names")
            return None
        if self.path.split("?")[0].endswith(("/", ".html")):
            self.pages.refresh()
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """Folders are not listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Nothing is cached, since pages change."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Server(ThreadingHTTPServer):
    """A server that reports an error in one line and keeps running, with a limited number of threads."""

    request_queue_size = 2 * MOST_CONNECTIONS  # the kernel lets connections beyond the queue wait for seconds

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Called in that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called within the handling of the error."""
        error = sys.exc_info()[1]
        if not isinstance(error, BrokenPipeError | ConnectionResetError):
            print(f"error: {error!r}", file=sys.stderr)


@contextmanager
def serving(store: Path, work: Path, host: str, port: int) -> Iterator[Server]:
    """A server with its pages written and its address bound; the caller lets it run.

    Args:
        store: see `site.write`.
        work: see `site.write`.
        host: the address to listen on.
        port: 0 for any free one.

    Raises:
        UserError: the address is not available.
    """
    with scratch() as folder:
        pages = Site(store, work, folder)
        names = frozenset({"localhost", host.lower(), socket.gethostname().lower()})
        try:
            server = Server((host, port), functools.partial(Handler, pages=pages, names=names))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on {host}, port {port} ({error}); use another --host or --port") from None
        with server:
            pages.refresh()
            yield server
