"""Where the API server is and who we are to it: inside the cluster by files, outside by kubeconfig.

The in-cluster way needs no package: three files and two environment variables that the kubelet
gives every Pod.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import trio

from stickyproxy.control.discovery.kube_server import Access, AccessError, ApiServer, with_alpn

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_AGE = 60.0
"""Seconds after which the token file is read again: bound tokens rotate, and the old one stays valid
for many minutes after the new one is there."""


class InClusterAccess:
    """The service account of this Pod; token and CA are read again when they have changed."""

    def __init__(self, host: str, port: int, folder: Path = SERVICE_ACCOUNT) -> None:
        """`folder` holds `token`, `ca.crt` and `namespace`. Raises `AccessError`."""
        self._host = host
        self._port = port
        self._folder = folder
        self._token = ""
        self._read_at = 0.0
        self._ca = ""
        self._tls: ssl.SSLContext | None = None
        self._take_token()
        try:
            self.namespace = self._read("namespace")
        except AccessError:
            self.namespace = "default"

    async def server(self) -> ApiServer:
        ca = self._read("ca.crt")
        if self._tls is None or ca != self._ca:
            self._tls, self._ca = _context(ca, self._folder / "ca.crt"), ca
        return ApiServer(self._host, self._port, self._tls, self._host)

    async def authorization(self, *, renew: bool = False) -> str | None:
        now = trio.current_time()
        if renew or now - self._read_at >= TOKEN_AGE:
            self._take_token()
            self._read_at = now
        return f"Bearer {self._token}"

    def _take_token(self) -> None:
        try:
            self._token = self._read("token")
        except AccessError:
            if not self._token:  # a file that is being replaced is no reason to forget
                raise

    def _read(self, name: str) -> str:
        file = self._folder / name
        try:
            text = file.read_text().strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "is no text"
            raise AccessError(f"{file}: {reason.lower()}") from None
        if not text:
            raise AccessError(f"{file}: is empty")
        return text


def _context(ca: str, file: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise AccessError(f"{file}: no usable PEM in it ({error})") from None
    return with_alpn(context)


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> InClusterAccess:
    """The access of a Pod. Raises `AccessError` where this is none."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise AccessError(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no Pod; "
            "use a kubeconfig"
        )
    if not (port.isascii() and port.isdigit()):
        raise AccessError(f"KUBERNETES_SERVICE_PORT: `{port}` is no port; right would be 443")
    return InClusterAccess(host.strip("[]"), int(port), folder)


async def find_access(
    environ: Mapping[str, str], kubeconfig: Path | None = None, context: str | None = None
) -> Access:
    """A kubeconfig if one is named (or $KUBECONFIG is), else the Pod's own. Raises `AccessError`."""
    if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    try:
        from stickyproxy.control.discovery import kube_config  # noqa: PLC0415 (130 MB behind it)
    except ImportError:
        raise AccessError(
            "a kubeconfig needs the package kubernetes: pip install 'stickyproxy[kubernetes]'"
        ) from None
    return await kube_config.load(kubeconfig, context)
