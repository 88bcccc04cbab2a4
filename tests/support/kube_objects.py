"""Services, EndpointSlices and Endpoints in one line each, as the API server's JSON has them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def service(name: str, *ports: tuple[str, int], namespace: str = "default", **spec: Any) -> Object:
    """Ports are (name, number); one unnamed 80 if none is given."""
    listed = [{"name": n or None, "port": p, "protocol": "TCP"} for n, p in ports or [("", 80)]]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": listed, "ipFamilies": ["IPv4"], **spec},
    }


def endpoint(
    address: str,
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    pod: str | None = None,
) -> Object:
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    found: Object = {"addresses": [address], "conditions": conditions}
    if pod is not None:
        found["targetRef"] = {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"}
    return found


def slice_of(
    service_name: str,
    name: str,
    *endpoints: str | Object,
    namespace: str = "default",
    ports: tuple[tuple[str, int | None], ...] = (("", 8080),),
    family: str = "IPv4",
) -> Object:
    """Endpoints are ready addresses, or made by `endpoint`."""
    listed = [endpoint(one) if isinstance(one, str) else one for one in endpoints]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": family,
        "endpoints": listed or None,
        "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports] or None,
    }


def endpoints_of(name: str, *addresses: str, namespace: str = "default", **more: Any) -> Object:
    """A core/v1 Endpoints object with one subset."""
    subset = {"addresses": [{"ip": one} for one in addresses], "ports": [{"port": 8080}], **more}
    return {"metadata": {"name": name, "namespace": namespace}, "subsets": [subset]}
