"""One line a stream: the record that an exchange fills in, and its two renderings.

Most values come from clients, so nothing reaches the line unescaped: the output is printable ASCII
whatever they sent, and no value can end its line or its quotes. Secrets have no field here: no
cookie, no authorization; a session's key appears as eight digits of its hash.

The rendering is one bytes format for the whole line, made once for each kind of line: where a request
went and what became of it is in the format already. All values of peers are checked together by one C
call; only a line with something in it that needs escaping pays for escaping (a `json.dumps` of the
same record costs five times the line).
"""

from __future__ import annotations

import json
import time

from stickyproxy.metrics import CODE_NAMES

MAX_VALUE = (
    4096  # a 60 KiB path tells nothing that its first 4 KiB do not; container logs cut at 16
)

_SAFE = bytes(c for c in range(0x20, 0x7F) if c not in b'"\\')
_SEPARATORS = b"\n" * 13
_NULL = b"null"
_GRPC = {
    code: b'{"number":%d,"name":"%b"}' % (code, name.encode()) for code, name in CODE_NAMES.items()
}
_MEMO_LIMIT = 2048
_MEMO_BYTES = 1500  # a format has about 700: some 3 MB in all, whatever peers make up

_LINE = (
    b'{"start_time":"%%b.%%03dZ","duration_ms":%%.3f,"ttfb_ms":%b,"protocol":"%b","method":"%b",'
    b'"authority":"%%b","path":"%%b",%b,"session":%b,"http_status":%d,"grpc_status":%b,'
    b'"grpc_message":%b,"bytes_in":%%d,"bytes_out":%%d,"messages_in":%%d,"messages_out":%%d,'
    b'"response_flags":"%b","attempts":%d,"peer":%b,"xff":%b,"request_id":%b,"trace_id":%b,'
    b'"user_agent":%b,"tls":%b%%b}\n'
)
"""The format of a format: what a kind of line has in common comes first."""
_GIVEN = b'"%b"'
_ABSENT = b"null%.0b"  # takes a value and shows nothing of it
_TEXT = (
    b'[%b.%03dZ] "%b %b %b" %d grpc=%b flags=%b bytes=%d/%d messages=%d/%d ms=%.3f ttfb_ms=%b '
    b'attempts=%d authority="%b" %b session=%b peer="%b" xff="%b" id="%b" trace="%b" '
    b'agent="%b" tls="%b" grpc_message="%b"%b\n'
)


class Record:
    """What is known about one exchange. Times in seconds, sizes in bytes of body.

    `start_time` is Unix time; `duration` and `ttfb` (None: no first byte) count from there. bytes
    values are as received and may be anything; empty means absent. `http_status` 0: no response
    was sent. `session_hash` is the 64-bit hash that chose the endpoint; `session_source` is header,
    cookie or source_ip; `session_result` as in `RouteStats.looked_up`. `response_flags` are Envoy's
    letters, joined by commas. `peer` is `ip:port`; `tls` the version. `upgrade` is `websocket` for a
    connection that became one, `close_code` that of its Close frame; other lines have neither.
    """

    __slots__ = (
        "attempts", "authority", "bytes_in", "bytes_out", "close_code", "cluster", "duration",
        "grpc_message",
        "grpc_status", "http_status", "messages_in", "messages_out", "method", "path", "peer",
        "pod", "protocol", "request_id", "response_flags", "route", "session_hash",
        "session_result", "session_source", "start_time", "tls", "trace_id", "ttfb", "upgrade",
        "upstream_host", "user_agent", "xff",
    )  # fmt: skip

    def __init__(self, start_time: float, protocol: str, peer: str, tls: str = "") -> None:
        self.start_time = start_time
        self.protocol = protocol
        self.peer = peer
        self.tls = tls
        self.method = self.authority = self.path = b""
        self.xff = self.request_id = self.trace_id = self.user_agent = self.grpc_message = b""
        self.route = self.cluster = self.upstream_host = self.pod = ""
        self.session_source = self.session_result = self.response_flags = ""
        self.upgrade = ""
        self.close_code: int | None = None
        self.session_hash: int | None = None
        self.grpc_status: int | None = None
        self.ttfb: float | None = None
        self.duration = 0.0
        self.http_status = self.attempts = 0
        self.bytes_in = self.bytes_out = self.messages_in = self.messages_out = 0


def trace_id(traceparent: bytes) -> bytes:
    """The 32 digits of a W3C `traceparent` (Trace Context §3.2), b"" if it is none."""
    if len(traceparent) >= 55 and traceparent[2] == traceparent[35] == 0x2D:
        return traceparent[3:35]
    return b""


def render_json(record: Record) -> bytes:
    """One line of JSON with its newline. Absent values are null; so is a session not asked for.

    Bytes that are no UTF-8 appear as a backslash, x and two digits, as Python prints them; a value
    is cut at `MAX_VALUE` bytes.
    """
    ttfb = record.ttfb
    values: tuple[bytes, ...] = (
        record.authority, record.path, record.grpc_message, record.peer.encode(),
        record.xff, record.request_id, record.trace_id, record.user_agent,
    )  # fmt: skip
    joined = b"".join(values)
    if joined.translate(None, _SAFE) or len(joined) > MAX_VALUE:
        values = tuple([escape(value) for value in values])
    authority, path, message, peer, xff, request_id, trace, agent = values
    kind = (
        record.protocol, record.method, record.route, record.cluster, record.upstream_host,
        record.pod, record.session_source, record.session_result, record.session_hash is None,
        record.http_status, record.grpc_status, record.response_flags, record.attempts, record.tls,
        ttfb is None, not message, not peer, not xff, not request_id, not trace, not agent,
    )  # fmt: skip
    start, hash_ = record.start_time, record.session_hash
    last, second = _last_second
    return (_formats.get(kind) or _format(kind, record)) % (
        second if int(start) == last else _second(start),
        start * 1000 % 1000,
        record.duration * 1000,
        b"" if ttfb is None else ttfb * 1000,
        authority,
        path,
        b"" if hash_ is None or not record.session_source else hash_ >> _TOKEN_BITS,
        message,
        record.bytes_in,
        record.bytes_out,
        record.messages_in,
        record.messages_out,
        peer,
        xff,
        request_id,
        trace,
        agent,
        _upgraded(record) if record.upgrade else b"",
    )


_formats: dict[tuple[object, ...], bytes] = {}


def _format(kind: tuple[object, ...], record: Record) -> bytes:
    """What all lines of a kind have in common; as many as there are endpoints times outcomes."""
    status = record.grpc_status
    named = _NULL if status is None else _GRPC.get(status) or _unnamed(status)
    where = (record.route, record.cluster, record.upstream_host, record.pod)
    made = _LINE % (
        _ABSENT if record.ttfb is None else b"%.3f",
        _fixed(record.protocol.encode()),
        _fixed(record.method),
        _where(where).replace(b"%", b"%%"),
        _session(record),
        record.http_status,
        named,
        _ABSENT if not record.grpc_message else _GIVEN,
        _fixed(record.response_flags.encode()) or b"-",
        record.attempts,
        *(_ABSENT if absent else _GIVEN for absent in kind[-5:]),
        _quoted(_fixed(record.tls.encode())),
    )
    if len(made) <= _MEMO_BYTES:
        if len(_formats) >= _MEMO_LIMIT:
            _formats.clear()
        _formats[kind] = made
    return made


def _fixed(value: bytes) -> bytes:
    """As a part of a format that stands for itself."""
    return escape(value).replace(b"%", b"%%")


def _session(record: Record) -> bytes:
    if not record.session_source:
        return _ABSENT
    source, result = (
        _fixed(text.encode()) for text in (record.session_source, record.session_result)
    )
    digits = _ABSENT if record.session_hash is None else b'"%08x"'
    return b'{"source":"%b","result":"%b","token_hash":%b}' % (source, result, digits)


def render_text(record: Record) -> bytes:
    """The same for people: values of peers in quotes, escaped as in JSON; `-` for absent ones."""
    (
        protocol, method, authority, path, flags, peer, tls,
        source, result, message, xff, request_id, trace, agent,
    ) = _values(record)  # fmt: skip
    status = record.grpc_status
    where = (record.route, record.cluster, record.upstream_host, record.pod)
    start = record.start_time
    return _TEXT % (
        _second(start),
        start * 1000 % 1000,
        method or b"-",
        path or b"-",
        protocol or b"-",
        record.http_status,
        b"-" if status is None else b"%d(%b)" % (status, _name(status)),
        flags or b"-",
        record.bytes_in,
        record.bytes_out,
        record.messages_in,
        record.messages_out,
        record.duration * 1000,
        b"-" if record.ttfb is None else b"%.3f" % (record.ttfb * 1000),
        record.attempts,
        authority or b"-",
        b'route="%b" cluster="%b" upstream="%b" pod="%b"'
        % tuple(escape(name.encode("utf-8", "backslashreplace")) or b"-" for name in where),
        b"%b/%b/%b" % (source, result, token_hash(record.session_hash) or b"-") if source else b"-",
        *(value or b"-" for value in (peer, xff, request_id, trace, agent, tls, message)),
        b" upgrade=%b close_code=%b" % (record.upgrade.encode(), _close_code(record))
        if record.upgrade
        else b"",
    )


def _upgraded(record: Record) -> bytes:
    return b',"upgrade":"%b","close_code":%b' % (record.upgrade.encode(), _close_code(record))


def _close_code(record: Record) -> bytes:
    return _NULL if record.close_code is None else b"%d" % record.close_code


def shorten(record: Record, longest: int) -> None:
    """Cut what peers sent to `longest` bytes each: the line has to be a small one."""
    for name in _SENT:
        value = getattr(record, name)
        if len(value) > longest:
            setattr(record, name, value[:longest] + b"...")


_TOKEN_BITS = 32  # of 64 that are left out

_SENT = (
    "authority", "grpc_message", "method", "path", "request_id", "trace_id", "user_agent", "xff",
)  # fmt: skip


def token_hash(hash_: int | None) -> bytes:
    """First eight hex digits of a 64-bit hash: enough to follow a session, too little to be one."""
    return b"" if hash_ is None else b"%08x" % (hash_ >> _TOKEN_BITS)


def escape(value: bytes) -> bytes:
    """As the inside of a JSON string: printable ASCII, no bare quote, nothing that controls."""
    if len(value) <= MAX_VALUE and not value.translate(None, _SAFE):
        return value
    text = value[:MAX_VALUE].decode("utf-8", "backslashreplace")
    if len(value) > MAX_VALUE:
        text += f"...({len(value)} bytes)"
    # JSON allows a bare DEL; terminals do not deserve one.
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f").encode("ascii")


def _values(record: Record) -> tuple[bytes, ...]:
    """Every string of the record, escaped if any of them needs it."""
    values = (
        record.protocol.encode(),
        record.method,
        record.authority,
        record.path,
        record.response_flags.encode(),
        record.peer.encode(),
        record.tls.encode(),
        record.session_source.encode(),
        record.session_result.encode(),
        record.grpc_message,
        record.xff,
        record.request_id,
        record.trace_id,
        record.user_agent,
    )
    joined = b"\n".join(values)
    # What is left when all harmless bytes are deleted: the 13 newlines of the join and no more.
    if joined.translate(None, _SAFE) == _SEPARATORS and len(joined) <= MAX_VALUE:
        return values
    return tuple([escape(value) for value in values])


def _quoted(value: bytes) -> bytes:
    return b'"%b"' % value if value else _NULL


def _name(status: int) -> bytes:
    return CODE_NAMES.get(status, "Unknown").encode()


def _unnamed(status: int) -> bytes:
    return b'{"number":%d,"name":"Unknown"}' % status


def _where(places: tuple[str, str, str, str]) -> bytes:
    names = (b"route", b"cluster", b"upstream_host", b"pod")
    return b",".join(
        b'"%b":%b' % (name, _quoted(escape(value.encode("utf-8", "backslashreplace"))))
        for name, value in zip(names, places, strict=True)
    )


_last_second = (0, b"1970-01-01T00:00:00")


def _second(now: float) -> bytes:
    """RFC 3339 without fraction, UTC; the last one is kept, most lines share it."""
    global _last_second  # noqa: PLW0603 - one cell, read and replaced whole
    second, text = _last_second
    if int(now) != second:
        second = int(now)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        _last_second = (second, text)
    return text
