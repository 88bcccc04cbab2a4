"""Writing to the real API server what controllers would write."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from support.kube_apiserver import ADMIN, ApiServerProcess

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
NODE = "lab"


class Api:
    """Its administrator. Everything is in the namespace `default`."""

    def __init__(self, server: ApiServerProcess) -> None:
        self._server = server

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        trust = ssl.create_default_context(cafile=str(self._server.ca))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._server.port, timeout=20, context=trust
        )
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        with closing(connection):
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
        return answer

    def node(self, address: str) -> None:
        addresses = [{"type": "InternalIP", "address": address}]
        made = {"metadata": {"name": NODE}, "status": {"addresses": addresses}}
        self.request("POST", "/api/v1/nodes", made)

    def service(self, name: str, **spec: str) -> str:
        """Its cluster IP; its port is 80, by the name of grpc."""
        ports = [{"name": "grpc", "port": 80, "protocol": "TCP"}]
        made = {"metadata": {"name": name}, "spec": {"ports": ports, **spec}}
        answer = self.request("POST", "/api/v1/namespaces/default/services", made)
        return str(answer["spec"]["clusterIP"])

    def put_slice(self, service: str, part: str, ips: Sequence[str], port: int) -> None:
        """Made, or replaced whole."""
        name = f"{service}-{part}"
        made = {
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [ip], "conditions": {"ready": True}, "nodeName": NODE} for ip in ips
            ],
        }
        if self._exists(name):
            self.request("PUT", f"{SLICES}/{name}", made)
        else:
            self.request("POST", SLICES, made)

    def _exists(self, name: str) -> bool:
        listed = self.request("GET", SLICES)
        return any(item["metadata"]["name"] == name for item in listed["items"])

    def delete_slice(self, service: str, part: str) -> None:
        self.request("DELETE", f"{SLICES}/{service}-{part}")

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        cluster = {
            "server": f"https://127.0.0.1:{self._server.port}",
            "certificate-authority": str(self._server.ca),
        }
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": NODE, "cluster": cluster}],
                    "users": [{"name": NODE, "user": {"token": ADMIN}}],
                    "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": NODE}}],
                    "current-context": NODE,
                }
            )
        )
        return path
