"""Paths with `.` and `..`, which would lead past the prefix that is asked for.

`/public/../admin` begins with `/public/`, and to most backends it is `/admin`. Emissary has Envoy settle
that before it routes (`normalize_path`, RFC 3986 §5.2.4). We settle what would lead elsewhere, and leave
other paths to their backend as they came. Slashes are the Module's matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from stickyproxy.model import Headers, RouteTable

_ESCAPED_DOT = re.compile(rb"%2e", re.IGNORECASE)


def may_have_dots(path: bytes) -> bool:
    """Two looks that a common path passes; a yes may be a mistake."""
    return b"/." in path or b"/%2" in path


def unambiguous(
    routes: RouteTable, headers: Headers, fields: Mapping[bytes, bytes] | None = None
) -> Headers:
    """The head with its path settled if that has another route; else the same object."""
    settled = without_dots(headers)
    if settled is headers or routes.match(settled) is routes.match(headers, fields):
        return headers
    return settled


def without_dots(headers: Headers) -> Headers:
    """The head with its path settled; the same object where there was nothing to do."""
    for index, (name, path) in enumerate(headers):
        if name == b":path":
            settled = settle(path)
            if settled == path:
                break
            return [*headers[:index], (name, settled), *headers[index + 1 :]]
    return headers


def settle(path: bytes) -> bytes:
    """RFC 3986 §5.2.4, with `%2e` as a dot (WHATWG URL §4.4). The query stays as it is."""
    plain, mark, query = path.partition(b"?")
    if not plain.startswith(b"/"):
        return path
    kept: list[bytes] = []
    ends_in_folder = False
    for segment in plain[1:].split(b"/"):
        dots = _ESCAPED_DOT.sub(b".", segment) if b"%" in segment else segment
        ends_in_folder = dots in (b".", b"..")
        if not ends_in_folder:
            kept.append(segment)
        elif dots == b".." and kept:
            kept.pop()
    if ends_in_folder:
        kept.append(b"")
    return b"/" + b"/".join(kept) + mark + query
