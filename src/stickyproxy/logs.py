"""What we print: a bounded queue with one writer thread per output, and the operator's log lines.

The event loop never waits for whoever reads our output (a stuck `docker logs` once stopped it).
When the reader is slower than we are, lines are lost and counted; memory stays within `limit`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import stat
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

QUEUE_LIMIT = 8 << 20  # bytes: about 10,000 access lines, half a second of a busy worker
BATCH = 64 << 10  # one write per pipe buffer; larger ones block half way
_GATHER = 0.01  # seconds: 100 wake-ups a second at most, whatever the rate of lines

_TELL_EVERY = 60.0  # seconds between two lines that say that lines are lost

ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes whole (POSIX write): lines of several processes never mix."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PLAIN = re.compile(r"[\w.:/\[\]@+*%,-]+", re.ASCII)


def shared_batch(fd: int) -> int:
    """For an output of several processes. What they write to one file is never mixed on Linux: each

    write has the file's lock.
    """
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return ATOMIC
    return BATCH if regular else ATOMIC


class Output:
    """Lines to a file descriptor, in order, by a daemon thread of its own.

    `write` may be called from any thread. Start it after a fork, not before: threads stay behind.
    """

    def __init__(
        self,
        fd: int,
        limit: int = QUEUE_LIMIT,
        batch: int = BATCH,
        complain: Callable[[int], None] | None = None,
    ) -> None:
        """`batch` is the most bytes of a write, if no single line is longer.

        `complain` is told, at once and then once a minute at the most, how many lines are lost by now:
        a full disk, a reader that left or is stuck. It is called from any thread.
        """
        self._complain = complain
        self._silent_until = 0.0
        self._fd = fd
        self._limit = limit
        self._batch = batch
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lines: list[bytes] = []
        self._size = 0
        self._pending = 0
        self._idle = True
        self._closed = False
        self._torn = False
        self.written = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name=f"output-{fd}", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue a line (with its newline). Never blocks; over the limit the line is lost."""
        with self._lock:
            size = self._size + len(line)
            fits = size <= self._limit and not self._closed
            if fits:
                self._size = size
                self._pending += 1
                self._lines.append(line)
                if not self._idle:
                    return
                self._idle = False
            else:
                self.lost += 1
        if fits:
            self._wake.set()
        else:
            self._tell_loss()

    def _tell_loss(self) -> None:
        now = time.monotonic()
        if self._complain is not None and now >= self._silent_until:
            self._silent_until = now + _TELL_EVERY
            self._complain(self.lost)

    def close(self, timeout: float) -> bool:
        """Write what is queued within `timeout` seconds; False if that was not enough.

        What is left then counts as lost. Nothing is accepted any more.
        """
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)
        with self._lock:
            self._closed = True
            self.lost += self._pending
            self._pending = 0
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(_GATHER)
            with self._lock:
                lines, self._lines = self._lines, []
                if not lines:
                    self._idle = True
                    self._wake.clear()
            if lines:
                self._write_lines(lines)
            elif self._closing.is_set():  # looked at after the clear, or its wake could be missed
                return

    def _write_lines(self, lines: list[bytes]) -> None:
        """Batches of whole lines; the queue's room is given back batch by batch."""
        start = 0
        while start < len(lines) and not self._closed:
            end, size = start, 0
            while end < len(lines) and (not size or size + len(lines[end]) <= self._batch):
                size += len(lines[end])
                end += 1
            whole = self._write_batch(lines[start:end])
            with self._lock:
                self._size -= size
                if not self._closed:
                    self._pending -= end - start
                    self.written += whole
                    self.lost += end - start - whole
            if whole < end - start:
                self._tell_loss()
            start = end

    def _write_batch(self, lines: list[bytes]) -> int:
        """Returns how many of the lines got out whole."""
        # Half a line stands there since an error: end it, so that only that one is spoilt.
        mend = b"\n" if self._torn else b""
        rest = memoryview(mend + b"".join(lines))
        done = 0
        with contextlib.suppress(OSError):  # EPIPE, ENOSPC, EBADF, EIO: told by what is missing
            while done < len(rest) and not self._closed:
                done += self._write_some(rest[done:])
        if done:
            self._torn = rest[done - 1] != 0x0A
        if done == len(rest):
            return len(lines)
        ends = itertools.accumulate(map(len, lines), initial=len(mend))
        return sum(end <= done for end in itertools.islice(ends, 1, None))

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # somebody who shares the file made it non-blocking
            select.select([], [self._fd], [], 1.0)
            return 0


def access_log_lost(lines: int) -> None:
    """For the access log's `Output`."""
    hint = "is its disk full, its reader stuck or gone?"
    error("access_log_lines_lost", lines=lines, hint=hint)


class OperatorLog:
    """Few lines, for the people who run this: `log.info("listening", bind="0.0.0.0:8080")`.

    `write` takes one encoded line. The event's text stays the same for the same event; what differs
    goes into fields. Values may be hostile: in both formats one call makes one line (in text, those
    of a traceback follow it, indented).
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        style: str = "text",
        level: str = "info",
        clock: Callable[[], float] = time.time,
        *,
        about: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        """`about` are fields of every line. A traceback may take half of `limit` bytes: its end."""
        self._about = dict(about or {})
        self._traceback = None if limit is None else limit // 2
        self._write = write
        self._render = _as_json if style == "json" else _as_text
        self._threshold = LEVELS[level]
        self._clock = clock

    def debug(self, event: str, **fields: Any) -> None:
        self.log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self.log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self.log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self.log("error", event, fields)

    def bug(self, event: str, error: BaseException, **fields: Any) -> None:
        """Something that must not happen: error level, with the traceback."""
        trace = "".join(traceback.format_exception(error))
        if self._traceback is not None:
            trace = trace[-self._traceback :]
        self.log("error", event, {**fields, "error": repr(error), "traceback": trace})

    def log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] >= self._threshold:
            now = self._clock()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            self._write(
                self._render(
                    f"{stamp}.{int(now * 1000 % 1000):03d}Z", level, event, self._about | fields
                )
            )


def _as_json(stamp: str, level: str, event: str, fields: dict[str, Any]) -> bytes:
    head = {"time": stamp, "level": level, "event": event}
    return (_escaped({**head, **fields, **head}) + "\n").encode("ascii")


def _as_text(stamp: str, level: str, event: str, fields: dict[str, Any]) -> bytes:
    trace = str(fields.get("traceback", ""))
    pairs = "".join(f" {k}={_value(v)}" for k, v in fields.items() if k != "traceback")
    below = "".join(f"\n    {_escaped(line)[1:-1]}" for line in trace.splitlines())
    return f"{stamp} {level.upper()} {_escaped(event)[1:-1]}{pairs}{below}\n".encode("ascii")


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else _plain(value)
    return text if _PLAIN.fullmatch(text) else _escaped(text)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _escaped(value: Any) -> str:
    """JSON in printable ASCII; it allows a bare DEL, terminals do not deserve one."""
    return json.dumps(value, default=_plain).replace("\x7f", "\\u007f")


def to_stderr(line: bytes) -> None:
    """At once, without a thread: before there is one, and after."""
    with contextlib.suppress(OSError):  # nobody listens: there is nowhere to say so
        os.write(2, line)


_log = OperatorLog(to_stderr)
"""Before `configure` lines go to stderr at once: a start that fails must not lose its reason."""


def configure(log: OperatorLog) -> None:
    """From now on the module's functions speak through `log`."""
    global _log  # noqa: PLW0603 - one per process, set at start
    _log = log


def debug(event: str, **fields: Any) -> None:
    _log.debug(event, **fields)


def info(event: str, **fields: Any) -> None:
    _log.info(event, **fields)


def warning(event: str, **fields: Any) -> None:
    _log.warning(event, **fields)


def error(event: str, **fields: Any) -> None:
    _log.error(event, **fields)


def bug(event: str, error: BaseException, **fields: Any) -> None:
    _log.bug(event, error, **fields)
