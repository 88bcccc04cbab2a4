"""kube-proxy and stickyproxy before the same pods, called by the same long-lived gRPC clients.

Runs within a network namespace of its own (`conformance/run.py kube-proxy` sees to that). Each round
opens 8 channels, makes 3,000 calls of 1,000 users over them, and closes them; the ways take turns,
in an order drawn anew for each round, so that a busy machine disturbs all alike. Then the channels
stay open while a fourth pod is added.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from conformance.kube_proxy import cluster as kube
from conformance.kube_proxy.picture import draw
from conformance.lab import network, pods
from conformance.lab.clients import Clients, Seen
from support.proxy_process import running_proxy

CHANNELS, USERS, CALLS, AT_ONCE = 8, 1_000, 3_000, 4
NAMES = ("pod-1", "pod-2", "pod-3", "pod-4")
MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {{name: echo}}
spec:
  hostname: "*"
  prefix: /
  grpc: true
  service: echo.default:80
  load_balancer: {balancer}
"""
MAGLEV = "{policy: maglev, header: x-user}"
ROUND_ROBIN = "{policy: round_robin}"


@dataclass
class Way:
    """One way to the pods, and what its rounds saw."""

    name: str
    target: str
    rounds: list[Seen] = field(default_factory=list)
    later: list[Seen] = field(default_factory=list)
    """With four pods, over channels that were opened when there were three."""

    def shares(self) -> list[float]:
        return [seen.share(pod) for seen in self.rounds for pod in NAMES[:3]]

    def figures(self) -> dict[str, float]:
        busiest = [max(seen.share(pod) for pod in NAMES[:3]) for seen in self.rounds]
        least = [min(seen.share(pod) for pod in NAMES[:3]) for seen in self.rounds]
        return {
            "busiest": mean(busiest),
            "busiest_worst": max(busiest),
            "least": mean(least),
            "least_worst": min(least),
            "idle_pods": sum(share == 0 for share in self.shares()),
            "pinned": mean(seen.pinned for seen in self.rounds),
            "fourth": mean(seen.share(NAMES[3]) for seen in self.later),
            "p50_ms": median(seen.percentile(50) for seen in self.rounds),
            "p99_ms": median(seen.percentile(99) for seen in self.rounds),
            "failures": sum(len(seen.failures) for seen in [*self.rounds, *self.later]),
        }


async def one_round(way: Way, seed: int) -> None:
    clients = Clients([way.target], CHANNELS, USERS, seed)
    try:
        await clients.call(CHANNELS * 8, AT_ONCE)  # connected, and past the first calls' cost
        way.rounds.append(await clients.call(CALLS, AT_ONCE))
    finally:
        await clients.close()


async def grow(ways: list[Way], add: Callable[[], None], seed: int) -> None:
    """Channels that have been open before a pod was added."""
    clients = [Clients([way.target], CHANNELS, USERS, seed) for way in ways]
    for one in clients:
        await one.call(CHANNELS * 8, AT_ONCE)
    await asyncio.to_thread(add)
    for way, one in zip(ways, clients, strict=True):
        way.later.append(await one.call(CALLS, AT_ONCE))
        await one.close()


def measure(rounds: int, growths: int, folder: Path) -> list[Way]:
    rng = random.Random(20)
    with ExitStack() as stack:
        addresses = [f"{ip}:{network.POD_PORT}" for ip in kube.POD_IPS]
        for pod in pods.start(NAMES, addresses):
            stack.callback(pod.stop)
        cluster = stack.enter_context(kube.running(folder))
        plain = cluster.service("echo", kube.POD_IPS[:3])
        affine = cluster.service("affine", kube.POD_IPS[:3], sessionAffinity="ClientIP")
        cluster.wait_for_rules(plain, 3)
        cluster.wait_for_rules(affine, 3)
        ways = [
            Way("kube-proxy (nftables)", f"{plain}:80"),
            Way("kube-proxy, sessionAffinity: ClientIP", f"{affine}:80"),
        ]
        for name, balancer in (
            ("stickyproxy, round_robin", ROUND_ROBIN),
            ("stickyproxy, maglev by header", MAGLEV),
        ):
            config = folder / f"{len(ways)}.yaml"
            config.write_text(MAPPING.format(balancer=balancer))
            proxy = stack.enter_context(
                running_proxy(
                    str(config),
                    *("--kubernetes", "on", "--kubeconfig", str(cluster.kubeconfig)),
                    *("--kube-namespace", "default"),
                )
            )
            ways.append(Way(name, proxy.target))
        for number in range(rounds):
            for way in rng.sample(ways, len(ways)):
                asyncio.run(one_round(way, seed=number))
        for number in range(growths):
            asyncio.run(grow(ways, lambda: add_pod(cluster, ways, plain, affine), seed=number))
            for name in ("echo", "affine"):
                cluster.endpoints(name, kube.POD_IPS[:3])
            cluster.wait_for_rules(plain, 3)
            asyncio.run(until(ways[2].target, lambda seen: seen.pods[NAMES[3]] == 0))
            asyncio.run(until(ways[3].target, lambda seen: seen.pods[NAMES[3]] == 0))
    return ways


def add_pod(cluster: kube.Cluster, ways: list[Way], plain: str, affine: str) -> None:
    """Returns when kube-proxy has its rules, and our proxies use it, for new connections at least."""
    for name, ip in (("echo", plain), ("affine", affine)):
        cluster.endpoints(name, kube.POD_IPS)
        cluster.wait_for_rules(ip, 4)
    for way in ways[2:]:
        asyncio.run(until(way.target, lambda seen: seen.pods[NAMES[3]] > 0))


async def until(target: str, holds: Callable[[Seen], bool]) -> None:
    for seed in range(200):
        clients = Clients([target], 1, USERS, seed)
        seen = await clients.call(100, 1)
        await clients.close()
        if holds(seen):
            return
    raise RuntimeError(f"the proxy at {target} does not hear of the change")


def table(ways: list[Way]) -> str:
    lines = [
        (
            "| way | busiest pod: mean (worst) | least busy pod: mean (worst) | pods without a call "
            "| users whom one pod answered always | fourth pod's share | p50 | p99 | failed |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way in ways:
        f = way.figures()
        lines.append(
            f"| {way.name} | {f['busiest']:.0%} ({f['busiest_worst']:.0%}) "
            f"| {f['least']:.0%} ({f['least_worst']:.0%}) "
            f"| {f['idle_pods']} of {3 * len(way.rounds)} | {f['pinned']:.0%} | {f['fourth']:.0%} "
            f"| {f['p50_ms']:.1f} ms | {f['p99_ms']:.1f} ms | {f['failures']} |"
        )
    return "\n".join(lines)


def main(output: Path, rounds: int = 10, growths: int = 3) -> None:
    with tempfile.TemporaryDirectory(prefix="stickyproxy-lab-") as folder:
        ways = measure(rounds, growths, Path(folder))
    figures = {
        way.name: {**way.figures(), "rounds": [dict(seen.pods) for seen in way.rounds]}
        for way in ways
    }
    (output / "kube-proxy.json").write_text(json.dumps(figures, indent=1) + "\n")
    picture = draw([(way.name, [seen.pods for seen in way.rounds]) for way in ways], NAMES[:3])
    (output / "kube-proxy.svg").write_text(picture)
    print(table(ways))
    ipvs = "is there" if kube.has_ipvs() else "is not in this kernel: not measured"
    print(f"\n{rounds} rounds of {CALLS} calls, {CHANNELS} channels, {USERS} users. IPVS {ipvs}.")
