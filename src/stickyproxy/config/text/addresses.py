"""How addresses are written: binds, backends, services. Each parser raises `ValueError` saying what

is wrong and what would be right, for whoever knows where the text came from.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from stickyproxy.model import Bind, UpstreamProtocol

PROTOCOLS = {
    "h2c": UpstreamProtocol.H2C,
    "grpc": UpstreamProtocol.H2C,
    "h2": UpstreamProtocol.H2,
    "grpcs": UpstreamProtocol.H2,
    "http": UpstreamProtocol.HTTP,
    "https": UpstreamProtocol.HTTPS,
}
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (what an ingress listens on)

_HOST = re.compile(r"(?!.{254})[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""A name that DNS can be asked for (RFC 1035 §2.3.4); with _ for Docker's and SRV names."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_BIND_SCHEMES = {"h2c": "h2c", "https": "https"}


@dataclass(frozen=True, slots=True)
class Url:
    """A backend or service as written. `scheme` and `port` are None where they were left out."""

    scheme: str | None
    host: str
    port: int | None

    @property
    def is_ip(self) -> bool:
        return is_ip(self.host)


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def default_port(protocol: UpstreamProtocol) -> int:
    """443 with TLS, else 80 (Emissary, and the schemes' own)."""
    return 443 if protocol.tls else 80


def parse_url(text: str, right: str) -> Url:
    """`[scheme://]host[:port]`; `right` is an example for the complaint."""
    found = _SCHEME.fullmatch(text)
    scheme, rest = (found[1].lower(), found[2]) if found else (None, text)
    if scheme is not None and scheme not in PROTOCOLS:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise ValueError(f"scheme {scheme}:// is not one of {known}; right would be {right}")
    rest = rest.removesuffix("/")
    if "/" in rest or "@" in rest or "?" in rest:
        raise ValueError(f"`{text}` has more than a host and a port; right would be {right}")
    host, port = split_host_port(rest, right)
    return Url(scheme, host, port)


def split_host_port(text: str, right: str) -> tuple[str, int | None]:
    """Host (an IPv6 address without brackets) and port, None if it is left out."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not is_ip(host) or (rest and not rest.startswith(":")):
            raise ValueError(f"`{text}` is no [IPv6]:PORT; right would be {right}")
        return host, parse_port(rest[1:], right) if rest else None
    if text.count(":") > 1:
        if is_ip(text):
            return text, None
        raise ValueError(f"`{text}` has several colons; right would be {right}")
    host, colon, port = text.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f"`{text}` is no host; right would be {right}")
    if re.fullmatch(r"[0-9.]+", host) and not is_ip(host):
        raise ValueError(f"`{host}` is no IPv4 address; right would be {right}")
    return host, parse_port(port, right) if colon else None


def parse_port(text: str, right: str, *, least: int = 1) -> int:
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:9]) <= 65535:
        raise ValueError(
            f"port `{text}` is no number from {least} to 65535; right would be {right}"
        )
    return int(text)


def parse_bind(text: str, right: str = "0.0.0.0:8080") -> Bind:
    """`ADDR`, `h2c://ADDR`, `https://ADDR`, `unix:PATH`, `fd://N`; port 0: any free one.

    `right` is an example for the complaint.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//")
        if not path:
            raise ValueError("unix: has no path; right would be unix:/run/stickyproxy.sock")
        return Bind(kind="unix", path=path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not number.isdecimal():
            raise ValueError(f"`{text}` names no file descriptor; right would be fd://3")
        return Bind(kind="fd", fd=int(number))
    found = _SCHEME.fullmatch(text)
    if found and found[1].lower() not in _BIND_SCHEMES:
        raise ValueError(
            f"`{text}`: a bind is ADDR, h2c://ADDR, https://ADDR, unix:PATH or fd://N; "
            f"right would be {found[2] or right}"
        )
    protocol = _BIND_SCHEMES[found[1].lower()] if found else "auto"
    host, port = _bind_address(found[2].removesuffix("/") if found else text, right)
    return Bind(kind="tcp", protocol=protocol, host=host, port=port)


def parse_admin(text: str, right: str = "127.0.0.1:9901") -> Bind:
    """A plain `[HOST]:PORT` or `unix:PATH`, for the admin and health ports."""
    if "://" in text and not text.startswith("unix:"):
        raise ValueError(f"`{text}` must be HOST:PORT or unix:PATH; right would be {right}")
    return parse_bind(text, right)


def _bind_address(text: str, right: str) -> tuple[str, int]:
    if text.isdecimal():
        return ANY_ADDRESS, parse_port(text, right, least=0)
    if text.startswith(":") and text[1:].isdecimal():
        return ANY_ADDRESS, parse_port(text[1:], right, least=0)
    if text.startswith("*:"):
        text = ANY_ADDRESS + text[1:]
    if text.endswith(":0"):  # only a bind may leave the port to the system
        return split_host_port(text.removesuffix(":0"), right)[0], 0
    host, port = split_host_port(text, right)
    if port is None:
        raise ValueError(f"`{text}` has no port; right would be {text}:{right.rpartition(':')[2]}")
    return host, port


def show_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def show_bind(bind: Bind) -> str:
    """A bind as people write it."""
    if bind.kind == "unix":
        return f"unix:{bind.path}"
    if bind.kind == "fd":
        return f"fd://{bind.fd}"
    prefix = "" if bind.protocol == "auto" else f"{bind.protocol}://"
    return prefix + show_address(bind.host, bind.port)
