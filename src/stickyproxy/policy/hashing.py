"""From a request to the 64-bit hash of its session, as Envoy's hash policies make it.

xxHash64 throughout. Several values of one header are sorted and hashed as a list, each seeded with
the result before it, so one value alone hashes as itself. An absent value means no hash, except
for a cookie with a ttl: that one is made, sent to the client, and hashes now as it will next time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from xxhash import xxh64_hexdigest, xxh64_intdigest

from stickyproxy.model import Client, HashPolicy, Headers


class Key(NamedTuple):
    """`hash` is None where the request has no session. `value`, or `text`, is what was hashed.

    It may be a secret (a session cookie): it is for `explain`, never for a log. `set_cookie` is
    the value of a Set-Cookie field that the response must carry, or None.
    """

    hash: int | None
    value: bytes
    set_cookie: bytes | None

    @property
    def text(self) -> str:
        return self.value.decode("utf-8", "backslashreplace")


NO_KEY = Key(None, b"", None)
_new = tuple.__new__  # what `Key` does, but for a call of Python's


def hash_of(
    policy: HashPolicy | None,
    headers: Headers,
    client: Client,
    entropy: Callable[[], int],
    fields: Mapping[bytes, bytes] | None = None,
) -> Key:
    """The session key of a request; `NO_KEY` where there is none, or no policy.

    `entropy` returns a random 64-bit number; only a cookie made behind a trusted hop asks it.
    `fields` are the headers by name, if they are known already.
    """
    if policy is None:
        return NO_KEY
    if policy.kind == "header":
        if fields is not None and len(fields) == len(headers) and policy.name != "host":
            value = fields.get(policy.field)
            return NO_KEY if value is None else _new(Key, (xxh64_intdigest(value), value, None))
        return _of_header(policy.name, headers)
    if policy.kind == "cookie":
        return _of_cookie(policy, headers, client, entropy)
    if policy.kind == "source_ip" and client.ip:
        return Key(xxh64_intdigest(client.ip.encode()), client.ip.encode(), None)
    return NO_KEY


def _of_header(name: str, headers: Headers) -> Key:
    # The codecs give HTTP/1.1's Host as :authority; Envoy finds it by both names.
    field = b":authority" if name == "host" else name.encode()
    values = [value for key, value in headers if key == field]
    if not values:
        return NO_KEY
    if len(values) > 1 and field == b"cookie":
        values = [b"; ".join(values)]  # one field that HTTP/2 split, RFC 9113 §8.2.3
    if len(values) == 1:
        return Key(xxh64_intdigest(values[0]), values[0], None)
    values.sort()
    hash_ = 0
    for value in values:
        hash_ = xxh64_intdigest(value, hash_)
    return Key(hash_, b", ".join(values), None)


def _of_cookie(
    policy: HashPolicy, headers: Headers, client: Client, entropy: Callable[[], int]
) -> Key:
    value = cookie_value(policy.name.encode(), headers)
    if value:
        return Key(xxh64_intdigest(value), value, None)
    if policy.ttl is None:
        return NO_KEY
    made = _new_value(client, entropy)
    if made is None:
        return NO_KEY
    return Key(xxh64_intdigest(made.encode()), made.encode(), _set_cookie(policy, made))


def cookie_value(name: bytes, headers: Headers) -> bytes:
    """The value of the first cookie of that name, without double quotes around it; b"" if absent.

    As lenient and as strict as Envoy: a crumb without `=` is skipped, blanks are dropped before
    a name and nowhere else.
    """
    for field, line in headers:
        if field == b"cookie" and name in line:
            for crumb in line.split(b";"):
                key, equals, value = crumb.lstrip(b" ").partition(b"=")
                if equals and key == name:
                    quoted = len(value) > 1 and value[:1] == value[-1:] == b'"'
                    return value[1:-1] if quoted else value
    return b""


def _new_value(client: Client, entropy: Callable[[], int]) -> str | None:
    """Envoy's value is one for a connection, so that the streams racing on it agree.

    Behind a trusted hop one connection carries many users, who must not all end up on one backend.
    """
    if client.behind_trusted_hop:
        return xxh64_hexdigest(f"{client.ip}{entropy():016x}".encode())
    ends = client.connection
    if not ends.remote_ip or not ends.local_ip:
        return None
    remote = _address(ends.remote_ip, ends.remote_port)
    local = _address(ends.local_ip, ends.local_port)
    return xxh64_hexdigest((remote + local).encode())


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _set_cookie(policy: HashPolicy, value: str) -> bytes:
    """Envoy's form and order. A ttl counts in whole seconds there, and 0 is a session cookie."""
    parts = [f'{policy.name}="{value}"']
    if seconds := int(policy.ttl or 0):
        parts.append(f"Max-Age={seconds}")
    if policy.path:
        parts.append(f"Path={policy.path}")
    parts.append("HttpOnly")
    return "; ".join(parts).encode()
