"""Access by kubeconfig: contexts, client certificates and exec plugins, by the official package.

The package is an extra and large; `kube_access` imports this module only when a kubeconfig is used.
It blocks (files, plugins), so it works in a thread.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio
import yaml
from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException

from stickyproxy.control.discovery.kube_server import AccessError, ApiServer, with_alpn

_load: Callable[..., None] = config.load_kube_config  # both come without types
_contexts: Callable[[str | None], tuple[list[Any], Any]] = config.list_kube_config_contexts


class KubeconfigAccess:
    """Made by `load`."""

    def __init__(self, file: Path | None, context: str | None) -> None:
        self.namespace = "default"
        self._file = str(file) if file is not None else None
        self._context = context
        self._configuration = Configuration()
        self._server: ApiServer | None = None

    async def server(self) -> ApiServer:
        if self._server is None:
            await trio.to_thread.run_sync(self.read)
        if self._server is None:
            raise AccessError("the kubeconfig names no server")
        return self._server

    async def authorization(self, *, renew: bool = False) -> str | None:
        return await trio.to_thread.run_sync(self._authorization, renew)

    def _authorization(self, renew: bool) -> str | None:
        if renew:
            self.read()
        try:
            key = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
            if not key and self._configuration.username:  # else it would say ":", which is a user
                key = self._configuration.get_basic_auth_token()
        except (ConfigException, OSError, ValueError) as error:
            raise AccessError(f"kubeconfig: {error}") from None
        return key

    def read(self) -> None:
        """Files and plugins, anew. Blocks. Raises `AccessError`."""
        fresh = Configuration()
        with self._told(), _silent_failures():
            _load(self._file, self._context, fresh, persist_config=False)
            contexts, current = _contexts(self._file)
            chosen = current
            if self._context is not None:
                chosen = next(one for one in contexts if one["name"] == self._context)
            namespace = (chosen.get("context") or {}).get("namespace") or "default"
        self._server = _server(fresh)
        self.namespace = namespace
        self._configuration = fresh

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Of a file that is not what it should be the package raises whatever it stumbles over."""
        place = f"kubeconfig: {self._file}:" if self._file else "kubeconfig:"
        try:
            yield
        except (ConfigException, OSError) as error:
            raise AccessError(f"kubeconfig: {_one_line(error)}") from None
        except yaml.YAMLError as error:
            raise AccessError(f"{place} is not YAML: {_one_line(error)}") from None
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            reason = f"({type(error).__name__}: {_one_line(error)})"
            raise AccessError(f"{place} is no kubeconfig {reason}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _silent_failures() -> Iterator[None]:
    """The package only logs that an exec plugin failed, and goes on as nobody; here that is an error."""
    told: list[str] = []
    thread = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                told.append(record.getMessage())

    collector = Collector(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield
    finally:
        root.removeHandler(collector)
    if told:
        raise ConfigException("; ".join(told))


def _server(found: Configuration) -> ApiServer:
    try:
        url = urlsplit(str(found.host))
        host, port = url.hostname, url.port
    except ValueError:
        url, host, port = urlsplit(""), None, None
    if url.scheme not in ("http", "https") or not host:
        right = "right would be https://HOST:6443"
        raise AccessError(f"kubeconfig: `{found.host}` is no URL of a server; {right}")
    prefix = url.path.rstrip("/")
    if url.scheme == "http":
        return ApiServer(host, port or 80, None, prefix=prefix)
    name = found.tls_server_name or host
    return ApiServer(host, port or 443, _context(found), name, prefix)


def _context(found: Configuration) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if found.cert_file:
            context.load_cert_chain(found.cert_file, found.key_file)
    except (ssl.SSLError, OSError) as error:
        raise AccessError(f"kubeconfig: no usable certificate ({error})") from None
    if not found.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return with_alpn(context)


async def load(file: Path | None, context: str | None) -> KubeconfigAccess:
    """Raises `AccessError`."""
    access = KubeconfigAccess(file, context)
    await trio.to_thread.run_sync(access.read)
    return access
