"""A read-only live view of the site, for the time of long runs: made again whenever the store has grown."""

import functools
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cgh_bench.core.errors import UserError
from cgh_bench.site import site

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECONDS_TO_RELOAD = 60
"""After so long a browser asks again."""


class Site:
    """The pages in a folder, made again when the store differs from the one that they are of."""

    def __init__(self, store: Path, work: Path, folder: Path) -> None:
        self.store, self.work, self.folder = store, work, folder
        self._made_of: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Make the pages, if there is reason to."""
        with self._lock:
            state = self._state()
            if state != self._made_of:
                site.write(self.store, self.work, self.folder)
                self._made_of = state

    def _state(self) -> tuple[int, int]:
        if not self.store.exists():
            return 0, 0
        found = self.store.stat()
        return found.st_size, found.st_mtime_ns


class Handler(SimpleHTTPRequestHandler):
    """Files below one folder by GET and HEAD, to those only who ask for this host by name."""

    def __init__(self, *arguments: Any, pages: Site, hosts: frozenset[str]) -> None:
        self.pages, self.hosts = pages, hosts
        super().__init__(*arguments, directory=str(pages.folder))

    def send_head(self) -> Any:
        """What GET and HEAD begin with.

        Another `Host` is refused: else a page from elsewhere whose name resolves to this machine could read the
        results (DNS rebinding).
        """
        host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]").lower()
        if host not in self.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server answers only to its own name")
            return None
        path = self.path.split("?")[0]
        if path.endswith(("/", ".html")):
            self.pages.refresh()
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """Folders are not listed."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Nothing is cached, since pages change; and a page left open asks again."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.path.split("?")[0].endswith(("/", ".html")):
            self.send_header("Refresh", str(SECONDS_TO_RELOAD))
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are nobody's business."""


class Server(ThreadingHTTPServer):
    """One that says in a line what went wrong while a page was made, and goes on."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called within the handling of the error."""
        error = sys.exc_info()[1]
        if not isinstance(error, BrokenPipeError | ConnectionResetError):
            print(f"error: {error!r}", file=sys.stderr)


@contextmanager
def serving(store: Path, work: Path, host: str, port: int) -> Iterator[Server]:
    """A server whose pages are made and whose address is bound; the caller lets it run.

    Args:
        store: see `site.write`.
        work: see `site.write`.
        host: the address to listen on; what browsers may call it, beside the names of loopback.
        port: 0 for any that is free.

    Raises:
        UserError: the address cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="cgh-bench-site-") as folder:
        pages = Site(store, work, Path(folder))
        hosts = frozenset({*LOOPBACK, host.lower()})
        try:
            server = Server((host, port), functools.partial(Handler, pages=pages, hosts=hosts))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on {host}, port {port} ({error}); name another (--host, --port)") from None
        with server:
            pages.refresh()
            yield server
