"""Our output: complete when it is read, bounded and counted when it is not."""

from __future__ import annotations

import json
import os
import resource
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy import logs
from stickyproxy.logs import OperatorLog, Output, shared_batch

LINE = b"x" * 99 + b"\n"
SOON = 10.0  # seconds; only a failing test waits that long


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def read_all(fd: int, into: list[bytes]) -> threading.Thread:
    def read() -> None:
        while piece := os.read(fd, 1 << 16):
            into.append(piece)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_every_line_arrives_whole_and_in_order(pipe: tuple[int, int]) -> None:
    pieces: list[bytes] = []
    reader = read_all(pipe[0], pieces)
    output = Output(pipe[1])
    lines = [b"%d %b\n" % (n, b"y" * (n % 700)) for n in range(5000)]
    for line in lines:
        output.write(line)

    assert output.close(SOON)
    os.close(pipe[1])
    reader.join(SOON)
    assert b"".join(pieces) == b"".join(lines)
    assert (output.written, output.lost) == (5000, 0)


def test_lines_of_many_threads_are_all_there(pipe: tuple[int, int]) -> None:
    pieces: list[bytes] = []
    reader = read_all(pipe[0], pieces)
    output = Output(pipe[1])

    def write() -> None:
        for _ in range(1000):
            output.write(LINE)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert output.close(SOON)
    os.close(pipe[1])
    reader.join(SOON)
    assert b"".join(pieces) == LINE * 4000


def test_a_reader_that_is_stuck_costs_lines_and_no_waiting(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1], limit=100_000)
    for _ in range(50_000):  # 5 MB into a pipe of 64 KiB that nobody reads
        output.write(LINE)

    assert output.lost >= 48_000
    assert not output.close(0.0)
    assert output.written + output.lost == 50_000


def test_what_was_queued_beside_a_stuck_reader_is_bounded(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1], limit=1000)
    output.write(b"z" * 1001)

    assert output.lost == 1
    output.write(LINE)
    assert output.close(SOON)
    assert os.read(pipe[0], 1000) == LINE


def test_after_the_end_nothing_is_accepted(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    assert output.close(SOON)
    output.write(LINE)

    assert (output.written, output.lost) == (0, 1)


def test_a_reader_that_left_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    output = Output(pipe[1])
    for _ in range(10):
        output.write(LINE)

    assert output.close(SOON)
    assert (output.written, output.lost) == (0, 10)


def test_an_output_that_is_closed_under_us_costs_lines(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    output = Output(pipe[1])
    output.write(LINE)

    assert output.close(SOON)
    assert output.lost == 1


def test_a_pipe_that_somebody_made_non_blocking_still_gets_all(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    output = Output(pipe[1])
    for _ in range(3000):  # 300 KB: more than the pipe takes at once
        output.write(LINE)
    pieces: list[bytes] = []
    reader = read_all(pipe[0], pieces)

    assert output.close(SOON)
    os.close(pipe[1])
    reader.join(SOON)
    assert b"".join(pieces) == LINE * 3000


def test_a_line_cut_by_a_full_disk_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    output = Output(fd)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, before[1]))
    try:
        cut = output._write_batch([b"first\n", b"second\n"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    output.write(b"third\n")
    assert output.close(SOON)
    os.close(fd)

    assert cut == 0
    assert path.read_bytes() == b"fir\nthird\n"


# --- operator's lines -------------------------------------------------------------------------


def told(style: str, event: str, **fields: object) -> bytes:
    lines: list[bytes] = []
    OperatorLog(lines.append, style, clock=lambda: 1_700_000_000.5).info(event, **fields)
    assert len(lines) == 1
    return lines[0]


def test_a_text_line_reads_as_a_sentence() -> None:
    line = told("text", "listening", bind="0.0.0.0:8080", workers=2, note="two words")

    assert line == (
        b'2023-11-14T22:13:20.500Z INFO listening bind=0.0.0.0:8080 workers=2 note="two words"\n'
    )


def test_a_json_line_is_one_object() -> None:
    assert json.loads(told("json", "config refused", file=Path("/etc/x.yaml"), problems=["a"])) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "event": "config refused",
        "file": "/etc/x.yaml",
        "problems": ["a"],
    }


@given(st.text(), st.one_of(st.text(), st.binary()))
def test_no_value_makes_a_second_line(event: str, value: str | bytes) -> None:
    for style in ("text", "json"):
        line = told(style, event, value=value)
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
        assert line.endswith(b"\n")


def test_a_field_cannot_pass_itself_off_as_the_event() -> None:
    found = json.loads(told("json", "real", level="forged", time="forged"))

    assert (found["level"], found["event"]) == ("info", "real")
    assert found["time"] != "forged"


def test_lines_below_the_level_are_not_written() -> None:
    lines: list[bytes] = []
    log = OperatorLog(lines.append, level="warning")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")

    assert [line.split()[1:] for line in lines] == [[b"WARNING", b"c"], [b"ERROR", b"d"]]


def test_a_bug_comes_with_its_traceback_and_forges_no_line() -> None:
    lines: list[bytes] = []
    error = ValueError("evil\n2023-11-14T22:13:20.500Z INFO forged")
    OperatorLog(lines.append).bug("stream failed", error, stream=3)
    OperatorLog(lines.append, "json").bug("stream failed", error)
    first, *rest = lines[0].decode().splitlines()

    assert "ERROR stream failed stream=3 error=" in first
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "ValueError: evil" in json.loads(lines[1])["traceback"]


def test_the_modules_functions_speak_through_what_was_configured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_log", logs._log)
    logs.error("before", why="not configured")
    lines: list[bytes] = []
    logs.configure(OperatorLog(lines.append, level="debug"))
    logs.debug("a")
    logs.info("b")
    logs.warning("c")
    logs.error("d")
    logs.bug("e", ValueError("x"))

    assert 'ERROR before why="not configured"' in capfd.readouterr().err
    assert [line.split()[2] for line in lines] == [b"a", b"b", b"c", b"d", b"e"]


def test_one_of_several_processes_says_which_and_keeps_to_short_lines() -> None:
    lines: list[bytes] = []
    log = OperatorLog(lines.append, "json", about={"worker": 2}, limit=4096)
    with pytest.raises(RecursionError) as raised:
        deep(500)
    log.bug("bug_in_test", raised.value)
    (line,) = lines
    assert len(line) <= 4096
    assert json.loads(line)["worker"] == 2
    assert "RecursionError" in json.loads(line)["traceback"]


def deep(left: int) -> None:
    """Ends in an error with a long traceback."""
    if not left:
        raise RecursionError
    (deep if left % 2 else deeper)(left - 1)


def deeper(left: int) -> None:
    deep(left - 1)


def test_lines_of_several_processes_to_a_pipe_go_in_pieces_it_takes_whole(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w"), (tmp_path / "log").open("wb") as file:
        assert shared_batch(writing) == select.PIPE_BUF
        assert shared_batch(file.fileno()) > select.PIPE_BUF
    assert shared_batch(-1) == select.PIPE_BUF
