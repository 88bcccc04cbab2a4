"""A long call of one user, said word by word."""

from __future__ import annotations

import queue
from typing import Any

from support.grpc_backends import PATIENCE, Client


class Chat:
    """It stays on the backend that it began on; `timeout` in seconds is its deadline."""

    def __init__(self, client: Client, user: str, timeout: float) -> None:
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        words = iter(lambda: self._said.get(timeout=PATIENCE), b"")
        self._replies: Any = client.chat(words, metadata=(("x-user", user),), timeout=timeout)

    def hears(self, word: bytes) -> bool:
        self._said.put(word)
        return bool(next(self._replies) == word)

    def ends_well(self) -> bool:
        self._said.put(b"")
        return list(self._replies) == [] and self._replies.code().value[0] == 0
