"""What went wrong on a link, as the error that its streams hear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from stickyproxy.codec.api import Codec
from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Retry, Side
from stickyproxy.events import CodecFailed, StreamReset

if TYPE_CHECKING:
    from stickyproxy.wire.stream import Stream


def lost(codec: Codec, detail: str) -> ProxyError:
    """The connection is gone, and with it whatever ran on it."""
    if codec.client:
        return ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, detail)
    return ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, detail, code=H2Code.CANCEL)


def fail_all(streams: Iterable[Stream], error: ProxyError) -> None:
    """Their link ended. One of them bears the news, the others repeat it."""
    for stream in list(streams):
        if stream.error is None:
            stream.fail(error)
            if not error.echo:
                error = replace(error, echo=True)


def broken(codec: Codec, event: CodecFailed) -> ProxyError:
    """The peer broke the protocol beyond repair."""
    detail = f"{_code_name(event.code)}: {event.reason}"
    if codec.client:
        return ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM, detail)
    return lost(codec, detail)


def reset_error(codec: Codec, event: StreamReset) -> ProxyError:
    """One stream was ended, by the peer or because of what the peer did on it."""
    detail = event.reason or f"reset with {_code_name(event.code)}"
    if not codec.client:
        kind, side = ErrorKind.CLIENT_GONE, Side.DOWNSTREAM
    elif event.by_peer and not codec.protocol.startswith("HTTP/1"):
        kind, side = ErrorKind.UPSTREAM_RESET, Side.UPSTREAM
    elif event.by_peer:  # HTTP/1.1 has no reset to relay: the connection ended
        return lost(codec, detail)
    else:
        kind, side = ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM
    retry = Retry.SAME_ENDPOINT if event.unprocessed else Retry.NO
    return ProxyError(kind, side, detail, retry=retry, code=event.code, relay=event.by_peer)


def reason_of(error: BaseException) -> str:
    """The words of the system for why a connection broke."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "the connection was lost"


def is_reset(error: BaseException) -> bool:
    """Whether the peer did it; else the network, or we."""
    return isinstance(error.__cause__, ConnectionResetError | BrokenPipeError)


def _code_name(code: int) -> str:
    try:
        return H2Code(code).name
    except ValueError:
        return f"code {code}"
