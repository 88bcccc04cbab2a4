"""Where a long run is: one line that rewrites itself, or a line for each step where it cannot."""

from __future__ import annotations

import sys
import time


class Progress:
    """Steps go to stderr, results to stdout."""

    def __init__(self) -> None:
        self.stage = ""
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()

    def say(self, step: str) -> None:
        seconds = int(time.monotonic() - self._began)
        line = f"{seconds // 60}:{seconds % 60:02} {self.stage} {step}"
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line[:100]}")
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def print(self, text: str) -> None:
        self.clear()
        print(text, flush=True)
