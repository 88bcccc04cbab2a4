"""Which codec speaks on a connection: HTTP/2 by the engine people chose (`--codec`), or HTTP/1.1."""

from __future__ import annotations

import copy

from stickyproxy.codec.api import Codec, CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.codec.limits import WHOLE_MARK, CreditMark
from stickyproxy.codec.reference import ReferenceCodec
from stickyproxy.wire.bounds import DEFAULT, Allowance

HTTP2_ENGINES: dict[str, type[FastCodec | ReferenceCodec]] = {
    "fast": FastCodec,
    "reference": ReferenceCodec,
}


class Codecs:
    """Makes the codecs of one worker; they share its `CreditMark`, a part of the whole if it is one

    of `workers`. `allowed` is for the links that they speak on.

    Raises:
        KeyError: for the name of an engine that there is not; `config` refuses it before.

    """

    def __init__(
        self,
        engine: str,
        limits: CodecLimits,
        workers: int = 1,
        allowed: Allowance = DEFAULT,
    ) -> None:
        self.limits = limits
        self.allowed = allowed
        self._engine = HTTP2_ENGINES[engine]
        self._mark = CreditMark(WHOLE_MARK // workers)

    def limited(self, limits: CodecLimits) -> Codecs:
        """Others with limits of their own, under the same mark."""
        twin = copy.copy(self)
        twin.limits = limits
        return twin

    def server(self, *, multiplexed: bool, tls: bool) -> Codec:
        """Towards a client. `tls` gives HTTP/1.1 requests their `:scheme`."""
        return self._make(client=False, multiplexed=multiplexed, tls=tls)

    def client(self, *, multiplexed: bool, tls: bool) -> Codec:
        """Towards a backend."""
        return self._make(client=True, multiplexed=multiplexed, tls=tls)

    def _make(self, *, client: bool, multiplexed: bool, tls: bool) -> Codec:
        if multiplexed:
            return self._engine(client, self.limits, mark=self._mark)
        return Http1Codec(client, self.limits, scheme="https" if tls else "http")
