"""Checks of what Mappings write: regular expressions, header names, text for request lines."""

from __future__ import annotations

import re
from urllib.parse import quote

import re2

from stickyproxy.config.fields.balancer import TOKEN
from stickyproxy.config.resources.items import Entry, Item
from stickyproxy.config.schema.features import RegexRedirectSpec
from stickyproxy.config.schema.mapping import RegexRewriteSpec
from stickyproxy.config.text.addresses import is_ip
from stickyproxy.config.text.decode import Report

_HOST_GLOB = re.compile(r"\[[0-9a-z:.%_~-]+\]|[a-z0-9._~!$&'()*+,;=%-]+")
"""What an authority without its port may be, as our codec lets it through, in lower case."""

_REFERENCE = re.compile(r"\\(?:([0-9])|.)", re.DOTALL)  # RE2's: a group, or an escaped backslash
_NO_FIELD_TEXT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URI_TEXT = "%/:?#[]@!$&'()*+,;=\\"
_OF_ONE_HOP = frozenset(
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    )
)  # RFC 9110 §7.6.1, RFC 9112 §6


def check_regex(entry: Entry, report: Report, pattern: str, *keys: str) -> int | None:
    """How many groups it has; None after a complaint."""
    options = re2.Options()
    options.log_errors = False  # RE2 would write to stderr by itself
    try:
        groups: int = re2.compile(pattern, options).groups
    except re2.error as exc:
        reason = exc.args[0] if exc.args else exc
        reason = reason.decode() if isinstance(reason, bytes) else reason
        entry.problem(report, f"`{pattern}` is no regular expression (RE2): {reason}", *keys)
        return None
    return groups


def check_rewriter(
    entry: Entry, report: Report, spec: RegexRewriteSpec | RegexRedirectSpec, key: str
) -> None:
    """Pattern and substitution, and that the one has what the other speaks of."""
    groups = check_regex(entry, report, spec.pattern, key, "pattern")
    check_sendable(entry, report, spec.substitution, key, "substitution")
    for found in _REFERENCE.finditer(spec.substitution):
        if groups is not None and found[1] and int(found[1]) > groups:
            has = f"has {found[0]}, and pattern has {groups} group{'s'[: groups != 1]}"
            entry.problem(report, has, key, "substitution")


def check_change(entry: Entry, report: Report, name: str, key: str) -> None:
    """A header that a Mapping may add or take away: no pseudo-header (as in Envoy), and the host has

    fields of its own.
    """
    if not TOKEN.fullmatch(name):
        entry.problem(report, f"`{name}` is no header name; right would be x-user", key)
    elif name.lower() == "host":
        entry.problem(report, f"`{name}` is set by host_rewrite, which is its own field", key)


def check_addition(entry: Entry, report: Report, name: str, value: str, key: str) -> None:
    """A second length or framing beside the true one is what smuggled requests are made of."""
    check_change(entry, report, name, key)
    if name.lower() in _OF_ONE_HOP:
        message = f"`{name}` is between two neighbours, who set it themselves; leave it out"
        entry.problem(report, message, key)
    if not is_field_value(value):
        message = "a header value has no line breaks or control characters, and no blanks around it"
        entry.problem(report, message, key, name)


def is_field_value(text: str) -> bool:
    """RFC 9110 §5.5."""
    return text == text.strip(" \t") and not _NO_FIELD_TEXT.search(text)


def check_header(entry: Entry, report: Report, name: str, key: str) -> None:
    if not TOKEN.fullmatch(name.removeprefix(":")):
        entry.problem(report, f"`{name}` is no header name; right would be x-user", key)


def check_sendable(entry: Entry, report: Report, text: str, *keys: str) -> None:
    """A blank or control character in a request line is another request (RFC 9112 §11.2)."""
    if any(character <= " " or character == "\x7f" for character in text):
        entry.problem(report, f"`{text}` has a blank or control character; write %20", *keys)
    elif not text.isascii():
        right = "xn--…" if keys == ("host_rewrite",) else quote(text, safe=_URI_TEXT)
        entry.problem(report, f"`{text}` is not all ASCII; right would be {right}", *keys)


def check_path(entry: Entry, report: Report, path: str) -> None:
    """Warns of a prefix that no request has, and of one that every request has."""
    if not path and not entry.spec.prefix_exact:
        entry.warn(report, "is empty and matches every path; right would be /", "prefix")
    elif not path.startswith("/"):
        entry.warn(report, f"`{path}` matches nothing, a path begins with /", "prefix")
    elif "?" in path or "#" in path:
        message = (
            f"`{path}` matches nothing, a path has neither ? nor #; query_parameters has its own"
        )
        entry.warn(report, message, "prefix")


def check_hostname(item: Item[object], report: Report, glob: str, key: str) -> None:
    """Warns of a host, or a glob of hosts, that no request has: `glob` is in lower case."""
    if _HOST_GLOB.fullmatch(glob):
        return
    host, colon, port = glob.partition(":")
    if colon and port.isdecimal() and _HOST_GLOB.fullmatch(host):
        why = f"hosts are compared without their port; right would be {host}"
    elif is_ip(glob):
        why = f"an IPv6 address has brackets; right would be [{glob}]"
    elif not glob.isascii():
        why = "clients say such names in ASCII; right would be xn--…"
    else:
        why = "it is no host name; right would be shop.example.com"
    item.warn(report, f"`{glob}` matches nothing: {why}", key)
