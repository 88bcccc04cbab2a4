"""A Mapping that answers by a redirect, by Emissary's rules: `host_redirect` makes it one."""

from __future__ import annotations

from stickyproxy.config.fields.checks import check_rewriter, check_sendable
from stickyproxy.config.resources.items import Entry
from stickyproxy.config.text.addresses import is_ip, parse_url, show_address
from stickyproxy.config.text.decode import Report
from stickyproxy.rules import Redirect

CODES = (301, 302, 303, 307, 308)
_PATHS = ("path_redirect", "prefix_redirect", "regex_redirect")
_NEED_HOST = (*_PATHS, "redirect_response_code")
_WITHOUT_BACKEND = ("cors", "retry_policy", "circuit_breakers", "health_checks", "load_balancer")


def is_redirect(entry: Entry) -> bool:
    """A shadow is none, whatever it says (Emissary's rule)."""
    return bool(entry.spec.host_redirect) and not entry.spec.shadow


def redirect(entry: Entry, report: Report) -> Redirect | None:
    """What is answered; None for a Mapping with a backend, or after a complaint."""
    spec = entry.spec
    if not is_redirect(entry):
        _warn_of_no_effect(entry, report)
        return None
    _warn_of_backend(entry, report)
    code = spec.redirect_response_code or CODES[0]
    if code not in CODES:
        known = ", ".join(map(str, CODES))
        message = f"`{code}` is no redirect; right would be one of {known}"
        entry.problem(report, message, "redirect_response_code")
    scheme, authority = _place(entry, report)
    pattern = _pattern(entry, report)
    for name in ("path_redirect", "prefix_redirect"):
        check_sendable(entry, report, getattr(spec, name) or "", name)
    kind = _path_kind(entry, report)
    return Redirect(
        authority=authority,
        scheme=scheme,
        path=spec.path_redirect if kind == "path_redirect" else None,
        prefix=spec.prefix_redirect if kind == "prefix_redirect" else None,
        regex=pattern if kind == "regex_redirect" else None,
        code=code,
    )


def _warn_of_no_effect(entry: Entry, report: Report) -> None:
    if entry.spec.host_redirect and entry.spec.shadow:
        entry.warn(report, "has no effect beside shadow: true", "host_redirect")
    for name in _NEED_HOST:
        if getattr(entry.spec, name) is not None:
            entry.warn(report, "has no effect without host_redirect: true", name)


def _warn_of_backend(entry: Entry, report: Report) -> None:
    for name in _WITHOUT_BACKEND:
        if getattr(entry.spec, name) is not None:
            entry.warn(report, "has no effect beside host_redirect: true", name)


def _place(entry: Entry, report: Report) -> tuple[str | None, str | None]:
    """Scheme (None: the client's) and authority; no namespace is added to a redirect's host."""
    try:
        url = parse_url(entry.spec.service, "www.example.com")
    except ValueError as exc:
        entry.problem(report, str(exc), "service")
        return None, None
    if url.scheme not in (None, "http", "https"):
        message = f"{url.scheme}:// is no place for clients; right would be https://{url.host}"
        entry.problem(report, message, "service")
    host = f"[{url.host}]" if is_ip(url.host) and ":" in url.host else url.host
    return url.scheme, host if url.port is None else show_address(url.host, url.port)


def _pattern(entry: Entry, report: Report) -> tuple[str, str] | None:
    spec = entry.spec.regex_redirect
    if spec is None:
        return None
    check_rewriter(entry, report, spec, "regex_redirect")
    return spec.pattern, spec.substitution


def _path_kind(entry: Entry, report: Report) -> str:
    """The one that counts; the order is Emissary's."""
    given = [name for name in _PATHS if getattr(entry.spec, name) is not None]
    for name in given[1:]:
        entry.warn(report, f"has no effect beside {given[0]}", name)
    if not given:
        return ""
    if given[0] == "prefix_redirect" and entry.spec.prefix_regex:
        entry.warn(report, "has no effect with prefix_regex; use regex_redirect", given[0])
    return given[0]
