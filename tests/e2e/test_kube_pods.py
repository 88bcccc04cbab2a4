"""The whole proxy in a cluster, straight to the pods, under sticky load."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from support.chat import Chat
from support.exposed import Exposed
from support.grpc_backends import (
    PATIENCE,
    connected,
)
from support.http_clients import raw_client
from support.pod_world import USERS, World, add, running_world, take_out
from support.proxy_process import ProxyProcess, command
from support.sticky_load import StickyLoad

pytestmark = pytest.mark.timeout(180)

# --- rolling restart ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["maglev", "ring_hash"])
def test_rolling_restart_of_all_pods_fails_no_call_and_moves_only_who_has_to(
    tmp_path: Path, policy: str
) -> None:
    old, new = ["a1", "b1", "c1"], ["a2", "b2", "c2"]
    with (
        running_world(tmp_path, *old, *new, members=old, policy=policy) as world,
        StickyLoad(world.proxy.target, USERS) as load,
        connected(world.proxy.target) as client,
    ):
        load.round_after(0.0)
        load.settle(world.homes(old))
        for leaving, coming in zip(old, new, strict=True):
            starting = world.pod(coming, ready=False)
            load.round_after(starting)
            homes = world.homes(world.members)
            assert all(call.backend == homes[call.user] for call in load.since(starting))

            add(world, load, coming)
            user = next(u for u, home in world.homes(world.members).items() if home == leaving)
            chat = Chat(client, user, 120)
            assert chat.hears(b"one")
            take_out(world, load, leaving)
            assert chat.hears(b"two"), "a call that is under way may end where it began"
            assert chat.ends_well()
            world.fleet[leaving].finish()
            vanished = world.kube.gone(leaving)
            load.round_after(vanished)
            homes = world.homes(world.members)
            assert all(call.backend == homes[call.user] for call in load.since(vanished))
        assert world.members == new
        assert load.failures() == []
    assert {line["pod"] for line in world.proxy.access} == {*old, *new}


def test_pod_that_is_not_ready_for_a_while_gets_its_own_users_back_and_no_other_moves(
    tmp_path: Path,
) -> None:
    names = ["a", "b", "c", "d"]
    with (
        running_world(tmp_path, *names, members=names) as world,
        StickyLoad(world.proxy.target, USERS) as load,
    ):
        homes = world.homes(names)
        load.round_after(0.0)
        load.settle(homes)
        started = time.perf_counter()
        resting = world.pod("b", ready=False)
        others = {user: home for user, home in homes.items() if home != "b"}
        load.round_after(resting, rounds=3)
        world.pod("b")
        load.settle(homes)
        assert load.failures() == []
        for call in load.since(started):
            assert homes[call.user] in ("b", call.backend), f"{call} was to stay on {others}"


def test_without_a_way_to_a_cluster_it_says_so_and_exits_2(tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
    ended = subprocess.run(
        command("run", "--kubernetes", "on", "--bind", "127.0.0.1:0", "--admin", "off"),
        env={**environment, **nowhere},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("--kubernetes: kubeconfig: ")
    assert said.endswith("right would be --kubeconfig FILE, or a pod with a service account")


# --- the API server -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["killed", "frozen", "frozen and killed", "compacted"])
def test_api_server_in_trouble_costs_no_call_and_is_caught_up_with(
    tmp_path: Path, trouble: str
) -> None:
    names = ["a", "b", "c"]
    with (
        running_world(tmp_path, *names, "d", members=names) as world,
        StickyLoad(world.proxy.target, USERS) as load,
    ):
        homes = world.homes(names)
        load.round_after(0.0)
        load.settle(homes)
        moment = time.perf_counter()
        make_trouble(world, trouble)
        load.round_after(time.perf_counter(), rounds=10)
        assert ready(world.proxy)
        assert all(call.backend == homes[call.user] for call in load.since(moment))
        end_trouble(world, trouble)
        add(world, load, "d")
        take_out(world, load, "a")
        assert load.failures() == []
        relists = Exposed(world.proxy).total("stickyproxy_kube_relists_total")
        assert relists > 0 or trouble != "compacted"


def make_trouble(world: World, trouble: str) -> None:
    if trouble == "compacted":
        world.kube.service(
            "elsewhere", namespace="kube-public"
        )  # so that our version is an old one
        world.kube.compact()
    if "frozen" in trouble:
        world.kube.freeze()
    if trouble == "killed":
        world.kube.kill()


def end_trouble(world: World, trouble: str) -> None:
    world.kube.thaw()
    if "killed" in trouble:
        world.kube.kill()
        world.kube.start()


def ready(proxy: ProxyProcess) -> bool:
    with raw_client(proxy.admin_port) as client:
        client.send(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n")
        return bool(client.read_response()[0] == 200)
