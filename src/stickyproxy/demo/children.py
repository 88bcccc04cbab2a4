"""The demo's processes: started, listened to, ended."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from typing import Any

_START_LIMIT = 60.0  # seconds for a child to listen; importing grpcio takes 10 on a cold, busy disk
_STOP_LIMIT = 5.0  # seconds from SIGTERM to SIGKILL; the proxy is told to drain for 1
_LISTENING = ("listening", "admin_listening")  # events of the log that carry an address
_KEPT_LINES = 20  # of a child's output, for when it fails


class DemoError(Exception):
    """The demo cannot go on; the message is for the person in front of it."""


class Child:
    """A process of ours. Its output is kept, and shown once `show` is set.

    It lives in a session of its own: Ctrl-C reaches the demo alone, which ends its children in
    order. Its stdin ends with us, however we end. Settings that the environment has for some other
    proxy do not reach it.
    """

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.show = False
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._addresses = {event: queue.Queue[str | None]() for event in _LISTENING}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("STICKYPROXY_")},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._last_lines.append(line)
            if self.show:
                print(line, end="", flush=True)
            said = _json_object(line)
            if said.get("event") in _LISTENING and "bind" in said:
                self._addresses[said["event"]].put(str(said["bind"]))
        for address in self._addresses.values():
            address.put(None)

    def address(self, event: str = "listening") -> str:
        """Where it says that it listens. Raises DemoError when it ends instead, or says nothing."""
        try:
            bind = self._addresses[event].get(timeout=_START_LIMIT)
        except queue.Empty:
            bind = None
        if bind is None:
            raise self.failure("did not start")
        return bind

    def failure(self, what: str) -> DemoError:
        """What happened, and the last that the child said."""
        return DemoError(f"{self.name} {what}\n{''.join(self._last_lines)}".rstrip())

    def terminate(self) -> None:
        """Ask it to end; what it says about that is nobody's concern."""
        self.show = False
        self.process.terminate()
        if self.process.stdin:
            self.process.stdin.close()

    def wait(self) -> None:
        """Until it is gone, which is made sure of."""
        try:
            self.process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()


def _json_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
