"""One node's view of a cluster, in a network namespace: API server, kube-proxy, pods' addresses.

No kubelet, no CNI: the pods' addresses and the route to the cluster IPs are on `lo`, and that is all
that kube-proxy's nftables rules need, which hook the output of local clients as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.lab import network
from conformance.lab.api import NODE, Api
from conformance.lab.network import NODE_IP, POD_PORT
from support import kube_apiserver
from support.kube_apiserver import ApiServerProcess

POD_IPS = ("10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.4")
PACKAGE = "k8s.io/kubernetes/cmd/kube-proxy"
START_LIMIT = 60.0
"""Seconds for kube-proxy's first sync."""


def binary() -> Path:
    return kube_apiserver.binary().with_name(f"kube-proxy-{kube_apiserver.version()}")


def build() -> None:
    """Some minutes on two cores, once; at the lowest priority."""
    fresh = binary().with_suffix(".new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-mod=mod", "-p=1", "-buildvcs=false", "-trimpath"]
    command += ["-ldflags=-s -w", "-o", str(fresh), PACKAGE]
    subprocess.run(["nice", "-n", "19", *command], cwd=kube_apiserver.MODULE, check=True)
    fresh.rename(binary())


def missing() -> list[str]:
    """What keeps it from running here, in words; nothing if it can."""
    found = network.missing() + network.absent(("nft", "nftables"), ("etcd", "etcd-server"))
    if os.geteuid() != 0:
        found.append("root: kube-proxy sets what no user namespace may")
    if not kube_apiserver.binary().exists():
        found.append("a kube-apiserver: python tests/support/kube_apiserver.py")
    if not binary().exists() and shutil.which("go") is None:
        found.append(f"`go`, to build kube-proxy, or the binary as {binary()}")
    return found


def has_ipvs() -> bool:
    return Path("/proc/net/ip_vs").exists()


class Cluster:
    """`service` makes a Service and its slice, `endpoints` replaces who is in it."""

    def __init__(self, server: ApiServerProcess, folder: Path) -> None:
        self._folder = folder
        self._api = Api(server)
        self._process: subprocess.Popen[bytes] | None = None
        self._api.node(NODE_IP)
        self.kubeconfig = self._api.kubeconfig(folder)

    def service(self, name: str, ips: Sequence[str], **spec: str) -> str:
        """Its cluster IP."""
        ip = self._api.service(name, **spec)
        self.endpoints(name, ips)
        return ip

    def endpoints(self, name: str, ips: Sequence[str]) -> None:
        self._api.put_slice(name, "1", ips, POD_PORT)

    def start_kube_proxy(self) -> None:
        log = self._folder / "kube-proxy.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [
                    str(binary()),
                    "--proxy-mode=nftables",
                    f"--kubeconfig={self.kubeconfig}",
                    f"--hostname-override={NODE}",
                    "--cluster-cidr=10.244.0.0/16",
                    "--conntrack-max-per-core=0",
                    "--conntrack-tcp-timeout-established=0s",
                    "--conntrack-tcp-timeout-close-wait=0s",
                    "--v=2",
                ],
                stdout=out,
                stderr=out,
            )

    def stop_kube_proxy(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_for_rules(self, ip: str, count: int) -> None:
        """Until the rules for a cluster IP choose among `count` pods."""
        until = time.monotonic() + START_LIMIT
        while time.monotonic() < until and self._process and self._process.poll() is None:
            if _choices(ip) == count:
                return
            time.sleep(0.2)
        said = (self._folder / "kube-proxy.log").read_text()[-3000:]
        raise RuntimeError(f"kube-proxy wrote no rules for {count} pods of {ip}:\n{said}")


def _choices(ip: str) -> int:
    """How many pods the rules for a cluster IP choose among; 0 while there are none."""
    done = subprocess.run(
        ["nft", "--json", "list", "table", "ip", "kube-proxy"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return 0
    listed = json.loads(done.stdout)["nftables"]
    services = [item["map"] for item in listed if item.get("map", {}).get("name") == "service-ips"]
    rules = [item["rule"] for item in listed if "rule" in item]
    for where, verdict in (pair for m in services for pair in m.get("elem", [])):
        if where["concat"][0] == ip:
            chain = verdict["goto"]["target"]
            texts = [json.dumps(rule) for rule in rules if rule["chain"] == chain]
            return max((text.count('"target": "endpoint-') for text in texts), default=0)
    return 0


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Etcd, API server and kube-proxy, within the namespace; all end with the block."""
    with kube_apiserver.running() as server:
        cluster = Cluster(server, folder)
        cluster.start_kube_proxy()
        try:
            yield cluster
        finally:
            cluster.stop_kube_proxy()
