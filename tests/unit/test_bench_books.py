"""A block counts only if our own log and metrics say what the load says."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench.books import Books
from bench.job import Job


class Admin(HTTPServer):
    """The admin port of a proxy that has counted `calls`."""

    calls = 7


class Page(BaseHTTPRequestHandler):
    server: Admin

    def do_GET(self) -> None:
        half, rest = self.server.calls // 2, self.server.calls - self.server.calls // 2
        text = f'request_total{{route="a"}} {half}\nrequest_total{{route="b"}} {rest}\n'
        text += f'response_total{{route="a"}} {self.server.calls}\n'
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Nothing on stderr."""


@pytest.fixture
def admin() -> Iterator[Admin]:
    with Admin(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def books(admin: Admin, folder: Path, *, log: bool = True) -> tuple[Books, Path]:
    job = Job(folder, port=1, admin=admin.server_port, backends=(), log=log)
    job.access_log.write_bytes(b"{}\n" * 3)
    return Books(job, patience=0.0), job.access_log


def test_books_that_balance_have_no_complaint(admin: Admin, tmp_path: Path) -> None:
    kept, log = books(admin, tmp_path)
    admin.calls += 2
    log.write_bytes(log.read_bytes() + b"{}\n" * 2)

    assert kept.complaint(2) == ""

    kept.settle()
    assert kept.complaint(0) == ""


def test_a_lost_log_line_voids_a_block(admin: Admin, tmp_path: Path) -> None:
    kept, log = books(admin, tmp_path)
    admin.calls += 2
    log.write_bytes(log.read_bytes() + b"{}\n")

    assert kept.complaint(2) == "2 calls, but 1 log lines"


def test_calls_that_were_not_counted_void_a_block(admin: Admin, tmp_path: Path) -> None:
    kept, log = books(admin, tmp_path)
    admin.calls += 1
    log.write_bytes(log.read_bytes() + b"{}\n" * 2)

    assert kept.complaint(2) == "2 calls, but request_total 1, response_total 1"


def test_without_a_log_no_line_may_be_written(admin: Admin, tmp_path: Path) -> None:
    kept, log = books(admin, tmp_path, log=False)
    admin.calls += 1

    assert kept.complaint(1) == ""
    log.write_bytes(log.read_bytes() + b"{}\n")
    assert kept.complaint(1) == "1 calls, but 1 log lines"
