"""Which pod these headers get, on the tables and with the health that the running proxy has now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from urllib.parse import parse_qsl, urlencode

from stickyproxy.control.explain import Answer, Request, Unknown, World, explain, lines
from stickyproxy.control.view import AdminView
from stickyproxy.model import Cluster, ClusterSpec, Endpoint

FIELDS = ("path", "method", "header", "source_ip", "authority", "http_method", "tls", "port")
"""Of a question, as `explain` has its flags; `header` may come more than once."""


class Asked:
    """A question, as it came in a query."""

    def __init__(self, query: str) -> None:
        self.said: list[tuple[str, str]] = parse_qsl(query, max_num_fields=100)

    def one(self, name: str) -> str:
        return next((value.strip() for key, value in self.said if key == name), "")

    @property
    def headers(self) -> Sequence[str]:
        """Several may stand in one field, a line each."""
        found = [line for key, value in self.said if key == "header" for line in value.split("\n")]
        return [line.strip() for line in found if line.strip()]

    @property
    def empty(self) -> bool:
        return not any(key in FIELDS and value.strip() for key, value in self.said)

    def request(self) -> Request:
        """Raises `ValueError` for what is none."""
        port = self.one("port")
        if port and not port.isdecimal():
            raise ValueError(f"port: `{port}` is no number")
        return Request(
            path=self.one("path") or None,
            grpc_method=self.one("method") or None,
            headers=self.headers,
            source_ip=self.one("source_ip"),
            authority=self.one("authority") or None,
            http_method=self.one("http_method") or None,
            tls=self.one("tls") in ("1", "true", "on"),
            port=int(port) if port else None,
        )


def query_of(request: Request) -> str:
    """The query in which `Asked` finds this request."""
    said = [
        ("path", request.path or ""),
        ("method", request.grpc_method or ""),
        *(("header", header) for header in request.headers),
        ("source_ip", request.source_ip),
        ("authority", request.authority or ""),
        ("http_method", request.http_method or ""),
        ("tls", "1" if request.tls else ""),
        ("port", "" if request.port is None else str(request.port)),
    ]
    return urlencode([(name, value) for name, value in said if value])


def answer(view: AdminView, asked: Asked) -> tuple[Answer, bool]:
    """And whether the request would reach a backend. Raises `ValueError` for a bad question."""
    request = asked.request()
    return explain(view.loaded(), request, _world(view))


def answer_json(view: AdminView, asked: Asked) -> tuple[int, str]:
    """A status and its text; 400 says what is wrong with the question."""
    try:
        said, reaches = answer(view, asked)
    except ValueError as error:
        return 400, json.dumps({"error": str(error)}) + "\n"
    return 200, json.dumps(asdict(said) | {"reaches": reaches}) + "\n"


def answer_lines(view: AdminView, asked: Asked) -> list[str]:
    try:
        return lines(answer(view, asked)[0])
    except ValueError as error:
        return [f"error {str(error).removeprefix('--')}"]


def _world(view: AdminView) -> World:
    snapshot = view.snapshot()
    clusters = snapshot.clusters if snapshot is not None else {}

    def find(spec: ClusterSpec) -> Cluster | Unknown:
        found = clusters.get(spec.name)
        return found if found is not None else Unknown("it is not known yet", reaches=False)

    def against(cluster: Cluster, endpoint: Endpoint) -> str:
        if view.panics(cluster.name):  # then everybody is used, whatever is known of them
            return ""
        return view.endpoint_health(cluster.name, endpoint.key).reason

    return World(find, against)
