"""What every request meets before a route is looked for: Module ambassador's rules of the edge.

A Module that asks for none of it has no `Gate`, and its requests pay nothing. The order is Envoy's:
the connection manager tidies headers and path, then comes its filter for addresses.
"""

from __future__ import annotations

import ipaddress
import re

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.model import Client, Headers
from stickyproxy.policy.redirect import https_location, scheme_of
from stickyproxy.rules import EdgePolicy, GateRules, IpRange

MEMO_SIZE = 4096  # addresses seen; one costs some microseconds to compare with each range
_ESCAPED_SLASH = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_SLASHES = re.compile(rb"//+")
_COLON = ord(":")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def gate_of(edge: EdgePolicy) -> Gate | None:
    """The gate, None where everything passes as it is."""
    return None if edge.gate == GateRules() else Gate(edge)


class Gate:
    """One `GateRules`, compiled. `added` is what every response gets, None for nothing."""

    __slots__ = ("_allow", "_deny", "_known", "_rules", "_tidies", "added")

    def __init__(self, edge: EdgePolicy) -> None:
        rules = self._rules = edge.gate
        self._allow = None if rules.ip_allow is None else _ranges(rules.ip_allow)
        self._deny = _ranges(rules.ip_deny)
        self._known: dict[tuple[str, str], bool] = {}
        self._tidies = rules.underscores != "allow"
        self.added: Headers | None = [(b"server", rules.server.encode())] if rules.server else None

    def admit(self, headers: Headers, client: Client) -> Headers:
        """The head as it goes on; raises `ProxyError` for one that does not."""
        if self._tidies:
            headers = self._tidied(headers)
        headers = self._rewritten(headers, client)
        if not self._admits(client.connection.remote_ip, client.ip):
            raise _refused(ErrorKind.FORBIDDEN, "this address is not let in")
        return headers

    def elsewhere(self, headers: Headers, client: Client) -> bytes | None:
        """Where a request that did not come over TLS is sent; None for one that may go on.

        Emissary's users set `use_remote_address: false` beside it, so that `x-forwarded-proto` is believed.
        """
        if not self._rules.https_redirect:
            return None
        return None if scheme_of(headers, client) == b"https" else https_location(headers)

    def _tidied(self, headers: Headers) -> Headers:
        kept = [field for field in headers if b"_" not in field[0]]
        if len(kept) != len(headers) and self._rules.underscores == "reject":
            raise _refused(ErrorKind.BAD_REQUEST, "a header name has an underscore")
        return kept

    def _rewritten(self, headers: Headers, client: Client) -> Headers:
        """Pseudo-headers stand first."""
        rules, out = self._rules, headers
        for index, (name, value) in enumerate(headers):
            if name[0] != _COLON:
                break
            new = value
            if name == b":path":
                new = _clean_path(value, rules)
            elif name == b":authority" and rules.strip_port:
                new = value.removesuffix(b":%d" % client.connection.local_port)
            if new != value:
                out = out.copy() if out is headers else out
                out[index] = (name, new)
        return out

    def _admits(self, peer: str, remote: str) -> bool:
        known = self._known.get((peer, remote))
        if known is None:
            if len(self._known) >= MEMO_SIZE:
                self._known.clear()
            known = self._known[peer, remote] = self._decide(_parsed(peer), _parsed(remote))
        return known

    def _decide(self, peer: _Address | None, remote: _Address | None) -> bool:
        """An address that is not known (a unix socket's) is in no range."""
        if self._allow is not None and not _within(self._allow, peer, remote):
            return False
        return not _within(self._deny, peer, remote)


def _clean_path(path: bytes, rules: GateRules) -> bytes:
    plain, mark, query = path.partition(b"?")
    if rules.reject_escaped_slashes and _ESCAPED_SLASH.search(plain):
        raise _refused(ErrorKind.BAD_REQUEST, "the path has an escaped slash")
    if rules.merge_slashes and b"//" in plain:
        return _SLASHES.sub(b"/", plain) + mark + query
    return path


def _ranges(given: tuple[IpRange, ...]) -> list[tuple[bool, _Network]]:
    return [(one.peer, ipaddress.ip_network(one.network, strict=False)) for one in given]


def _within(
    ranges: list[tuple[bool, _Network]], peer: _Address | None, remote: _Address | None
) -> bool:
    for by_peer, network in ranges:
        address = peer if by_peer else remote
        if address is not None and address.version == network.version and address in network:
            return True
    return False


def _parsed(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _refused(kind: ErrorKind, detail: str) -> ProxyError:
    return ProxyError(kind, Side.INTERNAL, detail)
