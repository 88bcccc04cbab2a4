"""What happens to a head on its way through: fields of one hop go, forwarding fields come.

Everything works on lists of (name, value) in wire order, names lower case, pseudo-headers first. A
`HeaderPlan` is compiled once for a Target and an edge; per call it costs one dict and one pass.

What a proxy must take away is RFC 9110 §7.6.1: the fields of a connection, and whatever
`Connection` nominates. `te: trailers` survives, for by it a gRPC server tells a proxy that drops
trailers from one that does not. What it adds is Envoy's habit: `x-forwarded-for`,
`x-forwarded-proto`, `x-request-id`.

Where several behaviours were open:

* `x-request-id` is kept if it is there: as with Envoy, a stranger's is gone by then
  (`without_request_id`), unless that is to be preserved.
* `x-forwarded-client-cert` is never believed unless the edge says so; see `client_cert`.
* It (the id) is not added to responses: a gRPC client would see it as metadata that no server sent.
* `x-forwarded-for` becomes one field when we append, as many readers look at one field only.
* Proxy-Authorization and Trailer are left alone: RFC 9110 no longer counts them as hop-by-hop.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence

from stickyproxy.model import Client, Connection, HeaderAdd, Headers, Section, Target
from stickyproxy.policy import client_cert
from stickyproxy.rules import EdgePolicy

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 §7.6.1 but TE, which is looked at. HTTP2-Settings is of Upgrade (RFC 7540 §3.2.1)."""

_REQUEST_DROPPED = HOP_BY_HOP | {b"host"}

_NOT_NOMINATED = frozenset(
    {
        b"content-length",
        b"te",
        b"x-forwarded-client-cert",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
"""Never taken away because `Connection` says so: framing, and what the backend trusts *us* for."""

_OURS = frozenset(
    {
        b"x-envoy-decorator-operation",
        b"x-envoy-downstream-service-cluster",
        b"x-envoy-downstream-service-node",
        b"x-envoy-external-address",
        b"x-envoy-internal",
        b"x-envoy-original-path",
    }
)
"""What Envoy's backends take for a word of the proxy's; a client's own is taken away, as there."""

_NOT_IN_TRAILERS = HOP_BY_HOP | {b"content-length", b"host", b"te", b"trailer"}

_TE_TRAILERS = (b"te", b"trailers")
_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))

_SECTIONS = (
    256  # heads and trailers of answers; sections exist anyway, so these are some references
)


class HeaderPlan:
    """The header work of one Target.

    `upstream_tls` decides `:scheme`. Names and values that people wrote are sent as UTF-8; the
    authority cannot be set or removed by them except as `host_rewrite` (Envoy refuses it too).
    """

    __slots__ = (
        "_append_xff",
        "_cert",
        "_cert_details",
        "_common",
        "_dropped",
        "_dropped_of_hop",
        "_host",
        "_request",
        "_response",
        "_responses",
        "_scheme",
    )

    def __init__(self, target: Target, edge: EdgePolicy, *, upstream_tls: bool) -> None:
        self._append_xff = edge.use_remote_address
        self._dropped_of_hop = _REQUEST_DROPPED
        if self._append_xff:
            self._dropped_of_hop |= {b"x-forwarded-for"}
        self._cert = edge.client_cert
        self._cert_details = edge.client_cert_details
        if self._cert == "SANITIZE":
            self._dropped_of_hop |= {client_cert.FIELD}
        self._dropped = self._dropped_of_hop | {b"x-forwarded-proto"} | _OURS
        self._host = target.host_rewrite.encode() if target.host_rewrite else None
        self._scheme = b"https" if upstream_tls else b"http"
        self._common = self._append_xff and self._cert == "SANITIZE"
        self._request = _Edit(target.remove_request_headers, target.add_request_headers)
        self._response = _Edit(target.remove_response_headers, target.add_response_headers)
        self._responses = _Turned(self._response_anew)

    def request(
        self,
        headers: Headers,
        client: Client,
        *,
        path: bytes,
        authority: bytes | None,
        grpc_timeout: bytes | None,
        request_id: bytes,
        fields: Mapping[bytes, bytes] | None = None,
    ) -> Headers:
        """The head for the backend; `headers` stays as it is, `fields` are the same by name.

        `path` replaces `:path`. `authority` replaces `:authority`; None means the Target's
        `host_rewrite`, and without one what the client sent. `grpc_timeout` replaces the client's
        (or is added), None leaves it. `request_id` is used if the client sent none.
        """
        known = dict(headers) if fields is None else fields
        host = authority or self._host
        get, scheme = known.get, self._scheme
        if (
            self._common
            and host is None
            and not client.behind_trusted_hop
            and len(known) == len(headers)
            and b":authority" in known
            and get(b":path", path) == path
            and get(b":scheme", scheme) == scheme
            and get(b"te", b"trailers") == b"trailers"
            and self._dropped.isdisjoint(known)
        ):  # the common head: nothing stands twice, nothing is of one hop, nothing is said already
            out = [*headers, *client.connection.forwarded]
        else:
            out = self._anew(headers, known, client, path, host)
        if grpc_timeout is not None:
            if b"grpc-timeout" in known:
                _swap(out, b"grpc-timeout", grpc_timeout)
            else:
                out.append((b"grpc-timeout", grpc_timeout))
        if b"x-request-id" not in known:
            out.append((b"x-request-id", request_id))
        return out if self._request.idle else self._request.apply(out)

    def _anew(
        self,
        headers: Headers,
        known: Mapping[bytes, bytes],
        client: Client,
        path: bytes,
        host: bytes | None,
    ) -> Headers:
        """What `request` makes of any head, but for its timeout and its id."""
        dropped = self._dropped_of_hop if client.behind_trusted_hop else self._dropped
        out = _kept(headers, known, dropped)
        if known.get(b":scheme", self._scheme) != self._scheme:
            _swap(out, b":scheme", self._scheme)
        if known.get(b":path", path) != path:
            _swap(out, b":path", path)
        if b":authority" not in known:
            _give_authority(out, host or known.get(b"host"))
        elif host is not None:
            _swap(out, b":authority", host)
        self._add_missing(out, known, headers, client)
        if self._cert != "SANITIZE":
            self._say_cert(out, client.connection)
        return out

    def _add_missing(
        self, out: Headers, known: Mapping[bytes, bytes], headers: Headers, client: Client
    ) -> None:
        if known.get(b"te", b"trailers") != b"trailers" and _asks_for_trailers(headers):
            out.append(_TE_TRAILERS)
        connection = client.connection
        if self._append_xff and not client.behind_trusted_hop and _FORWARDED.isdisjoint(known):
            out.extend(connection.forwarded)
            return
        if self._append_xff:
            hops = _values(headers, b"x-forwarded-for")
            if connection.hop:
                hops.append(connection.hop)
            if hops:
                out.append((b"x-forwarded-for", b", ".join(hops)))
        if not (client.behind_trusted_hop and b"x-forwarded-proto" in known):
            out.append((b"x-forwarded-proto", connection.scheme))

    def _say_cert(self, out: Headers, connection: Connection) -> None:
        said = []
        if client_cert.believed(self._cert, connection):
            said = _values(out, client_cert.FIELD)
        ours = client_cert.element(self._cert, self._cert_details, connection)
        if ours is not None:
            said.append(ours)
        out[:] = [field for field in out if field[0] != client_cert.FIELD]
        if said:
            out.append((client_cert.FIELD, b",".join(said)))

    def response(self, headers: Headers, set_cookie: bytes | None = None) -> Headers:
        """The head for the client. `set_cookie` is a whole Set-Cookie value, added to the others.

        Statuses (`:status`, `grpc-status`, `grpc-message`) pass as they are.
        """
        if type(headers) is Section and set_cookie is None:
            return self._responses.of(headers)
        out = self._response_anew(headers)
        if set_cookie is not None:
            out.append((b"set-cookie", set_cookie))
        return out

    def _response_anew(self, headers: Headers) -> Headers:
        out = [field for field in headers if field[0] not in HOP_BY_HOP]
        if len(out) != len(headers):
            out = _without_nominated(out, headers)
        return self._response.apply(out)


class _Edit:
    """Removals and additions of one direction: first remove, then add (Envoy's order)."""

    __slots__ = ("_added", "_removed", "idle")

    def __init__(self, remove: Sequence[str], add: Sequence[HeaderAdd]) -> None:
        added = [(item.name.lower().encode(), item) for item in add if _is_editable(item.name)]
        replaced = {name for name, item in added if not item.append}
        removed = {name.lower().encode() for name in remove if _is_editable(name)}
        self._added = tuple((name, item.value.encode()) for name, item in added)
        self._removed = frozenset(replaced | removed)
        self.idle = not (self._added or self._removed)

    def apply(self, headers: Headers) -> Headers:
        if self.idle:
            return headers
        removed = self._removed
        out = [field for field in headers if field[0] not in removed]
        out.extend(self._added)
        return out


def _kept(headers: Headers, known: Mapping[bytes, bytes], dropped: frozenset[bytes]) -> Headers:
    """A copy without what is of one hop, and what is written anew."""
    trailers_only = known.get(b"te", b"trailers") == b"trailers"
    if trailers_only and len(known) == len(headers) and dropped.isdisjoint(known):
        return headers.copy()  # the common head: nothing stands twice, nothing is of one hop
    if not trailers_only:
        dropped |= {b"te"}
    out = [
        _TE_TRAILERS if field[0] == b"te" else field for field in headers if field[0] not in dropped
    ]
    return _without_nominated(out, headers) if b"connection" in known else out


def _swap(out: Headers, name: bytes, value: bytes) -> None:
    """`value` wherever `name` stands."""
    out[:] = [(name, value) if field[0] == name else field for field in out]


def _is_editable(name: str) -> bool:
    return not name.startswith(":") and name.lower() != "host"


def without_request_id(headers: Headers) -> Headers:
    """As ids of the proxy's own making are asked for where nobody trusted sent one."""
    return [field for field in headers if field[0] != b"x-request-id"]


def is_behind_hop(edge: EdgePolicy) -> bool:
    return edge.xff_num_trusted_hops > 0 or not edge.use_remote_address


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [field[1] for field in headers if field[0] == name]


def _tokens(headers: Headers, name: bytes) -> set[bytes]:
    return {
        token.strip().lower() for value in _values(headers, name) for token in value.split(b",")
    }


def _asks_for_trailers(headers: Headers) -> bool:
    return b"trailers" in _tokens(headers, b"te")


def _without_nominated(out: Headers, headers: Headers) -> Headers:
    nominated = _tokens(headers, b"connection") - _NOT_NOMINATED
    return [field for field in out if field[0] not in nominated or field[0].startswith(b":")]


def _give_authority(out: Headers, host: bytes | None) -> None:
    if host is not None:
        out.insert(0, (b":authority", host))


def clean_trailers(headers: Headers) -> Headers:
    """Trailers without what has no business there (RFC 9110 §6.5.1): framing and one-hop fields."""
    return _trailers.of(headers) if type(headers) is Section else _cleaned(headers)


def _cleaned(headers: Headers) -> Headers:
    return [field for field in headers if field[0] not in _NOT_IN_TRAILERS]


class _Turned:
    """What sections that come again become on their way, which is a section again."""

    __slots__ = ("_known", "_turn")

    def __init__(self, turn: Callable[[Headers], Headers]) -> None:
        self._turn = turn
        self._known: dict[int, tuple[Section, Section]] = {}

    def of(self, section: Section) -> Section:
        found = self._known.get(id(section))
        if found is not None:
            return found[1]
        out = self._turn(section)
        turned = section if out == section else Section(out)
        if len(self._known) >= _SECTIONS:
            self._known.clear()
        self._known[id(section)] = section, turned
        return turned


_trailers = _Turned(_cleaned)


def join_cookies(headers: Headers) -> Headers:
    """One `cookie` field, at the place of the first, as HTTP/1.1 wants it (RFC 9113 §8.2.3)."""
    crumbs = _values(headers, b"cookie")
    if len(crumbs) <= 1:
        return headers
    whole = [(b"cookie", b"; ".join(crumbs))]
    out = []
    for field in headers:
        if field[0] != b"cookie":
            out.append(field)
        elif whole:
            out.append(whole.pop())
    return out


def client_of(headers: Headers, connection: Connection, edge: EdgePolicy) -> Client:
    """Who the client is, by Envoy's rule for `x-forwarded-for` and trusted hops.

    With `use_remote_address` and N trusted hops: the Nth address from the right, for N = 0 the peer
    itself. Without it: the (N+1)th from the right. Too few addresses, or a text that is none: the
    peer. Several fields are one list. Unlike Envoy a port behind the address is allowed and dropped
    (some load balancers write one; a session must not hang on it), and an IPv4-mapped IPv6 address
    counts as IPv4, as it does for the peer.
    """
    behind_hop = is_behind_hop(edge)
    ip = connection.remote_ip
    if behind_hop:
        skipped = edge.xff_num_trusted_hops - edge.use_remote_address
        ip = _forwarded_ip(_values(headers, b"x-forwarded-for"), skipped) or ip
    return Client(ip, connection, behind_hop)


def _forwarded_ip(values: list[bytes], skipped: int) -> str | None:
    hops = b",".join(values).split(b",")
    if skipped >= len(hops):
        return None
    return _ip_of(hops[-1 - skipped].strip().decode("latin-1"))


def _ip_of(text: str) -> str | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)
