"""The live view: what it serves, to whom, and when it makes its pages again."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reporting import result

from cgh_bench import results
from cgh_bench.core.errors import UserError
from cgh_bench.site import server as servers
from cgh_bench.site.server import Server, serving


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of pages that only count the results."""

    def write(store: Path, work: Path, out: Path) -> Path:
        for name in ("tables", "assets"):
            (out / name).mkdir(exist_ok=True)
        (out / "assets/page.js").write_text("")
        (out / "index.html").write_text(f"{len(results.read(store)[0])} results")
        return out / "index.html"

    monkeypatch.setattr(servers.site, "write", write)
    with serving(tmp_path / "results.jsonl", tmp_path, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: Server, path: str = "/", method: str = "GET", host: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"localhost:{server.server_address[1]}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_pages_are_made_again_when_the_store_has_grown(running: Server, tmp_path: Path) -> None:
    assert ask(running) == (200, "0 results")
    results.append(tmp_path / "results.jsonl", result("a", 1.0))
    assert ask(running, "/index.html") == (200, "1 results")
    assert ask(running, method="HEAD") == (200, "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", " "])
def test_another_host_is_refused(running: Server, host: str) -> None:
    assert ask(running, host=host or "\t")[0] == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "LOCALHOST:1234", "[::1]:8000", "192.168.1.20:8000", socket.gethostname()]
)
def test_its_own_names_and_addresses_are_answered(running: Server, host: str) -> None:
    assert ask(running, host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(running: Server, method: str) -> None:
    assert ask(running, method=method)[0] == 501


@pytest.mark.parametrize(
    "path", ["/tables/", "/../results.jsonl", "/%2e%2e/results.jsonl", "//etc/passwd", "/absent.html"]
)
def test_only_the_site_is_served(running: Server, tmp_path: Path, path: str) -> None:
    results.append(tmp_path / "results.jsonl", result("a", 1.0))
    status, text = ask(running, path)
    assert status == 404
    assert "schema" not in text


def test_an_address_that_cannot_be_had_is_one_line(running: Server, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="cannot listen on 127.0.0.1"),
        serving(tmp_path / "results.jsonl", tmp_path, "127.0.0.1", running.server_address[1]),
    ):
        raise AssertionError("it listens")


def test_a_malformed_request_is_answered(running: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(running.server_address[:2], timeout=20) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"400" in connection.recv(1000)
    assert capsys.readouterr().err == ""


def test_an_idle_connection_is_closed(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.Handler, "timeout", 0.2)
    for sent in (b"", b"GET / HTT"):
        with socket.create_connection(running.server_address[:2], timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(1000) == b""


def test_an_open_page_is_loaded_again_by_its_script(running: Server) -> None:
    """The header `Refresh` would load the address that the page began with, without the reader's filters."""
    connection = http.client.HTTPConnection("127.0.0.1", running.server_address[1], timeout=20)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("Refresh") is None
    status, script = ask(running, "/assets/page.js")
    assert status == 200 and script.count("location.reload()") == 1


def test_half_open_connections_do_not_take_every_thread(running: Server) -> None:
    before, started = threading.active_count(), time.monotonic()
    open_ones = [socket.create_connection(running.server_address[:2], timeout=20) for _ in range(100)]
    assert open_ones[-1].recv(10) == b""  # closed: there are too many
    assert time.monotonic() - started < servers.SECONDS_FOR_A_REQUEST, "and not because it was idle"
    assert threading.active_count() - before <= servers.MOST_CONNECTIONS
    for connection in open_ones:
        connection.close()
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ask(running)[0] == 200
