"""The fidelity matrix: dialogues between a client and a backend, for with a proxy and without one.

A row is one call. What both sides heard of it can be compared: frame for frame, but for the fields that
say where a request came from, and for DATA, which may be cut elsewhere.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from support.dialogue import Backend, Call, Heard, Scene, request, scene
from support.rawframes import Fields

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, STREAM_CLOSED = 0, 1, 2, 5
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 7, 8, 11, 13
NOBODY_KNOWS = 0xBEEF
CODES = (
    *(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, STREAM_CLOSED, REFUSED_STREAM, CANCEL),
    *(ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED, NOBODY_KNOWS),
)

OURS = {b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id"}
"""What a backend is told beyond what the client said."""

GRPC: Fields = request(
    b"/echo.Echo/Call", (b"content-type", b"application/grpc"), (b"te", b"trailers")
)
PLAIN: Fields = request(b"/upload", (b"content-type", b"text/plain"))
GRPC_OK: Fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
STATUS: Fields = [(b"grpc-status", b"0")]
GONE: Fields = [(b"grpc-status", b"5"), (b"grpc-message", b"50%25 of it %E2%98%BA")]
MESSAGE = b"\0\0\0\0\x05hello"

METADATA: Fields = [
    (b"x-b", b"2"),
    (b"x-a", b"1"),
    (b"x-trace-bin", b"AAE"),  # without padding
    (b"x-b", b"1"),
    (b"x-trace-bin", b"Ag=="),  # and with it
    (b"x-joined-bin", b"AAE,Ag=="),
    (b"grpc-status-details-bin", b"CAUSBGdvbmU"),
    (b"x-a", b"0"),
]


class Outcome(NamedTuple):
    """Both sides of one call, when all that was to come of it has come."""

    client: list[Heard]
    backend: list[Heard]


Play = Callable[[Scene], tuple[Call, Call]]


# --- what the backend does ---


def unary(s: Scene, fields: Fields = GRPC) -> tuple[Call, Call]:
    """A request that is complete at the backend."""
    call = s.ask(fields)
    call.data(MESSAGE, end=True)
    got = s.got()
    s.until(lambda: got.ended)
    return call, got


def reset_before_head(s: Scene, code: int) -> tuple[Call, Call]:
    """As often as it is tried: REFUSED_STREAM may be."""
    call = s.ask(GRPC, end=True)
    got = s.got()
    got.rst(code)
    while not call.over:
        s.until(lambda: s.backend.waiting or call.over)
        if s.backend.waiting:
            s.got().rst(code)
    return call, got


def reset_after_head(s: Scene, code: int) -> tuple[Call, Call]:
    call, got = unary(s)
    got.head(GRPC_OK)
    s.until(lambda: call.headed)
    got.rst(code)
    s.until(lambda: call.over)
    return call, got


def reset_with_head(s: Scene, code: int) -> tuple[Call, Call]:
    call, got = unary(s)
    with got.at_once():
        got.head(GRPC_OK)
        got.rst(code)
    s.until(lambda: call.over)
    return call, got


def reset_after_data(s: Scene, code: int, body: bytes = MESSAGE) -> tuple[Call, Call]:
    call, got = unary(s)
    got.head(GRPC_OK)
    got.data(body)
    s.until(lambda: call.said(len(body)))
    got.rst(code)
    s.until(lambda: call.over)
    return call, got


def reset_with_data(s: Scene, code: int) -> tuple[Call, Call]:
    call, got = unary(s)
    with got.at_once():
        got.head(GRPC_OK)
        got.data(MESSAGE)
        got.rst(code)
    s.until(lambda: call.over)
    return call, got


def reset_amid_request(s: Scene, code: int) -> tuple[Call, Call]:
    call = s.ask(GRPC)
    call.data(MESSAGE)
    got = s.got()
    s.until(lambda: got.said(len(MESSAGE)))
    got.head(GRPC_OK)
    s.until(lambda: call.headed)
    got.rst(code)
    s.until(lambda: call.over)
    return call, got


def trailers_only(s: Scene) -> tuple[Call, Call]:
    call, got = unary(s)
    got.head([*GRPC_OK, *GONE], end=True)
    s.until(lambda: call.over)
    return call, got


def trailers_without_data(s: Scene) -> tuple[Call, Call]:
    call, got = unary(s)
    with got.at_once():
        got.head(GRPC_OK)
        got.trailers(GONE)
    s.until(lambda: call.over)
    return call, got


def trailers_after_no_content(s: Scene, *, late: bool) -> tuple[Call, Call]:
    """`content-length: 0`, and yet the stream goes on: END_STREAM says when it ends."""
    call, got = unary(s)
    head = [*GRPC_OK, (b"content-length", b"0")]
    if late:
        got.head(head)
        s.until(lambda: call.headed)
        got.trailers(GONE)
    else:
        with got.at_once():
            got.head(head)
            got.trailers(GONE)
    s.until(lambda: call.over)
    return call, got


def early_end(s: Scene, *, trailers: Fields) -> tuple[Call, Call]:
    """The whole answer before the request's end, and RST_STREAM(NO_ERROR) behind it."""
    call = s.ask(GRPC)
    call.data(MESSAGE)
    got = s.got()
    s.until(lambda: got.said(len(MESSAGE)))
    with got.at_once():
        got.head([*GRPC_OK, *([] if trailers else GONE)], end=not trailers)
        if trailers:
            got.data(MESSAGE)
            got.trailers(trailers)
        got.rst(NO_ERROR)
    s.until(lambda: call.reset)
    return call, got


def answered(
    s: Scene, head: Fields, *, asked: Fields = GRPC, body: bytes = MESSAGE
) -> tuple[Call, Call]:
    call, got = unary(s, asked)
    got.head(head)
    got.data(body)
    got.trailers([*STATUS, *METADATA])
    s.until(lambda: call.over)
    return call, got


def empty_last_frame(s: Scene) -> tuple[Call, Call]:
    """Neither side ends before its empty DATA frame with END_STREAM."""
    call = s.ask(PLAIN)
    got = s.got()
    got.head([(b":status", b"200")])
    s.until(lambda: call.headed)
    call.data(b"", end=True)
    s.until(lambda: got.ended)
    got.data(b"x")
    got.data(b"", end=True)
    s.until(lambda: call.over)
    return call, got


def hints(s: Scene) -> tuple[Call, Call]:
    call, got = unary(s, PLAIN)
    for number in (b"1", b"2"):
        got.head([(b":status", b"103"), (b"link", b"</%s.css>; rel=preload" % number)])
    got.head([(b":status", b"200"), (b"content-length", b"5")])
    got.data(b"hello", end=True)
    s.until(lambda: call.over)
    return call, got


def bodiless(s: Scene, method: bytes, status: bytes) -> tuple[Call, Call]:
    """A content-length for content that is not there, in an answer that must not have any."""
    fields = [(b":method", method), *request(b"/page")[1:]]
    call = s.ask(fields, end=True)
    got = s.got()
    got.head([(b":status", status), (b"content-length", b"42")], end=True)
    s.until(lambda: call.over)
    return call, got


def goaway(s: Scene) -> tuple[Call, Call]:
    """The connection ends with this stream, which runs on."""
    call, got = unary(s)
    got.goaway()
    got.head(GRPC_OK)
    got.data(MESSAGE)
    got.trailers(GONE)
    s.until(lambda: call.over)
    return call, got


def plain_answer(s: Scene, status: bytes) -> tuple[Call, Call]:
    call, got = unary(s, PLAIN)
    got.head([(b":status", status), (b"x-reason", b"said by the backend")])
    got.data(b"why", end=True)
    s.until(lambda: call.over)
    return call, got


# --- what the client does ---


def client_resets_before_body(s: Scene, code: int) -> tuple[Call, Call]:
    call = s.ask(GRPC)
    got = s.got()
    call.rst(code)
    s.until(lambda: got.over)
    return call, got


def client_resets_amid_request(s: Scene, code: int) -> tuple[Call, Call]:
    call = s.ask(GRPC)
    call.data(MESSAGE[:7])
    got = s.got()
    s.until(lambda: got.said(7))
    call.rst(code)
    s.until(lambda: got.over)
    return call, got


def client_resets_while_waiting(s: Scene, code: int) -> tuple[Call, Call]:
    call, got = unary(s)
    call.rst(code)
    s.until(lambda: got.reset)
    return call, got


def client_resets_amid_response(s: Scene, code: int) -> tuple[Call, Call]:
    call, got = unary(s)
    got.head(GRPC_OK)
    got.data(MESSAGE)
    s.until(lambda: call.said(len(MESSAGE)))
    call.rst(code)
    s.until(lambda: got.reset)
    return call, got


def request_trailers(s: Scene, body: bytes) -> tuple[Call, Call]:
    call = s.ask(PLAIN)
    if body:
        call.data(body)
    call.trailers([(b"x-checksum", b"9"), *METADATA])
    got = s.got()
    s.until(lambda: got.ended)
    got.head([(b":status", b"200")], end=True)
    s.until(lambda: call.over)
    return call, got


def both_ways(s: Scene) -> tuple[Call, Call]:
    """Message by message, each answered before the next is sent."""
    call = s.ask(GRPC)
    got = s.got()
    got.head(GRPC_OK)
    for number in range(1, 4):
        call.data(MESSAGE)
        s.until(lambda: got.said(number * len(MESSAGE)))  # noqa: B023 - awaited here
        got.data(MESSAGE)
        s.until(lambda: call.said(number * len(MESSAGE)))  # noqa: B023
    call.data(b"", end=True)
    s.until(lambda: got.ended)
    got.trailers(STATUS)
    s.until(lambda: call.over)
    return call, got


BY_CODE: dict[str, Callable[..., tuple[Call, Call]]] = {
    "upstream resets before its head": reset_before_head,
    "upstream resets after its head": reset_after_head,
    "upstream resets together with its head": reset_with_head,
    "upstream resets after data": reset_after_data,
    "upstream resets amid a message": partial(reset_after_data, body=MESSAGE[:7]),
    "upstream resets together with data": reset_with_data,
    "upstream resets while the request goes on": reset_amid_request,
    "client resets before its body": client_resets_before_body,
    "client resets amid its request": client_resets_amid_request,
    "client resets while it waits": client_resets_while_waiting,
    "client resets amid the response": client_resets_amid_response,
}

ROWS: dict[str, Play] = {
    **{
        f"{name}, code {code}": partial(play, code=code)
        for name, play in BY_CODE.items()
        for code in CODES
    },
    "trailers-only": trailers_only,
    "trailers without data": trailers_without_data,
    "content-length 0 and trailers": partial(trailers_after_no_content, late=False),
    "content-length 0 and late trailers": partial(trailers_after_no_content, late=True),
    "trailers-only before the request's end, and RST 0": partial(early_end, trailers=[]),
    "an answer before the request's end, and RST 0": partial(early_end, trailers=STATUS),
    "repeated and binary metadata in the response": partial(answered, head=[*GRPC_OK, *METADATA]),
    "repeated and binary metadata in the request": partial(
        answered, head=GRPC_OK, asked=[*GRPC, *METADATA]
    ),
    "an empty value": partial(answered, head=[*GRPC_OK, (b"x-empty", b"")]),
    "a value beyond ASCII": partial(answered, head=[*GRPC_OK, (b"x-latin", b"caf\xe9")]),
    "crumbs of cookies": partial(
        answered, head=GRPC_OK, asked=[*GRPC, (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    ),
    "no content type": partial(answered, head=GRPC_OK[:1]),
    "an unknown encoding": partial(answered, head=[*GRPC_OK, (b"grpc-encoding", b"zippy")]),
    "an incomplete message": partial(answered, head=GRPC_OK, body=MESSAGE[:7]),
    "an empty last frame": empty_last_frame,
    "informational heads": hints,
    "HEAD with a length": partial(bodiless, method=b"HEAD", status=b"200"),
    "304 with a length": partial(bodiless, method=b"GET", status=b"304"),
    "GOAWAY, and the rest of the stream": goaway,
    "status 599": partial(plain_answer, status=b"599"),
    "status 502 of the backend": partial(plain_answer, status=b"502"),
    "request trailers": partial(request_trailers, body=b"body"),
    "request trailers without a body": partial(request_trailers, body=b""),
    "streams both ways": both_ways,
}


# --- the same as direct ---


def held(backend: Backend, port: int, play: Play, *, tls: ssl.SSLContext | None = None) -> Outcome:
    with scene(backend, port, tls=tls) as s:
        call, got = play(s)
        s.settle()
        return Outcome(call.heard, [without_ours(heard) for heard in got.heard])


def without_ours(heard: Heard) -> Heard:
    return heard._replace(fields=tuple(field for field in heard.fields if field[0] not in OURS))


def told(heard: Sequence[Heard]) -> str:
    """How it ended, in words."""
    if not heard:
        return "nothing"
    last = heard[-1]
    fields = dict(last.fields)
    if last.kind == "reset":
        return f"RST {last.code}"
    if b"grpc-status" in fields:
        return f"grpc-status {fields[b'grpc-status'].decode()}"
    if not last.end:
        return f"{last.kind} and no end"
    status = dict(heard[0].fields).get(b":status", b"200").decode()
    if last.kind == "head" or status != "200":
        return f"HTTP {status}"
    return "END_STREAM" if last.kind == "data" else f"END_STREAM on {last.kind}"
