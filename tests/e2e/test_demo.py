"""The demo as a person sees it: real servers, the real proxy, real processes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stickyproxy.demo import play as demo_play
from stickyproxy.demo.calls import CALLS_PER_USER, CALLS_WITHOUT, USERS, Answers, call_everything
from stickyproxy.demo.children import Child, DemoError
from stickyproxy.demo.servers import SERVICE, EchoReply, EchoRequest, start

DEMO = [sys.executable, "-m", "stickyproxy", "demo"]


def rows(output: str) -> dict[str, list[int]]:
    """The table's counts by the name that stands before them."""
    found = re.findall(r"^(\w+|\(none\))((?: +(?:\d+|\.)){3})$", output, re.MULTILINE)
    return {name: [int(cell.replace(".", "0")) for cell in cells.split()] for name, cells in found}


def test_once_shows_sticky_users_and_a_spread_without_the_header_and_ends() -> None:
    done = subprocess.run([*DEMO, "--once"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    table = rows(done.stdout)
    without = table.pop("(none)")
    assert table.keys() == set(USERS)
    assert all(sorted(counts) == [0, 0, CALLS_PER_USER] for counts in table.values())
    assert sum(without) == CALLS_WITHOUT
    assert without.count(0) < len(without) - 1


def children_of(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_until_interrupted_and_leaves_nothing_behind(number: signal.Signals) -> None:
    with subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout
        seen = ""
        while "Ctrl-C" not in seen:
            line = demo.stdout.readline()
            assert line, seen
            seen += line
        children = children_of(demo.pid)
        (target,) = re.findall(r"grpcurl -plaintext (\S+) list", seen)
        answers = call_everything(target)
        demo.send_signal(number)
        rest = demo.stdout.read()

    assert answers.complaint() is None
    assert f"/{SERVICE}/Say" in rest  # its access log, shown as it came
    assert demo.returncode == 0, rest
    assert "Traceback" not in seen + rest
    assert len(children) == len(demo_play.BACKENDS) + 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_without_grpcio_one_line_names_the_extra() -> None:
    hide = "import sys; sys.modules['grpc'] = None; from stickyproxy import demo; "

    done = subprocess.run(
        [sys.executable, "-c", f"{hide} sys.exit(demo.main(once=True))"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "stickyproxy[demo]" in line


def test_a_proxy_that_does_not_start_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_play, "_proxy_arguments", lambda _: ["run", "--no-such-flag"])

    assert demo_play.play(once=True) == 1
    assert "--no-such-flag" in capfd.readouterr().err


def test_a_child_that_ends_without_listening_is_an_error_with_what_it_said() -> None:
    child = Child("this", "this")  # the standard library's `this` prints, and ends

    with pytest.raises(DemoError, match=r"(?s)this did not start.*Namespaces are one honking"):
        child.address()

    child.terminate()
    child.wait()


def test_a_user_on_two_backends_is_complained_of() -> None:
    answers = Answers({"alice": Counter({"pod-1": 5, "pod-2": 1})}, Counter("ab"))

    assert answers.complaint() == "stickiness did not hold: alice was answered by pod-1, pod-2"


def test_calls_without_header_on_one_backend_are_complained_of() -> None:
    server, port = start("pod-1")

    complaint = call_everything(f"127.0.0.1:{port}").complaint()
    server.stop(None).wait()

    assert complaint == "no spread: without x-user-id, all calls went to pod-1"


def test_a_call_that_fails_is_told_in_words() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    with pytest.raises(ConnectionError, match=r"UNIMPLEMENTED: Method not found!"):
        call_everything(f"127.0.0.1:{port}")
    server.stop(None).wait()


def test_the_server_has_four_kinds_of_call_health_and_reflection() -> None:
    server, port = start("pod-1")
    codec = {
        "request_serializer": EchoRequest.SerializeToString,
        "response_deserializer": EchoReply.FromString,
    }
    a, b = EchoRequest(text="a"), EchoRequest(text="b", times=2)

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        one = channel.unary_unary(f"/{SERVICE}/Say", **codec)(a)
        collected = channel.stream_unary(f"/{SERVICE}/Collect", **codec)(iter([a, b]))
        repeated = list(channel.unary_stream(f"/{SERVICE}/Repeat", **codec)(b))
        chatted = list(channel.stream_stream(f"/{SERVICE}/Chat", **codec)(iter([a, b])))
        health = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        (described,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)])
        )
    server.stop(None).wait()

    replies = [one, collected, *repeated, *chatted]
    assert [reply.text for reply in replies] == ["a", "a b", "b", "b", "a", "b"]
    assert {reply.backend for reply in replies} == {"pod-1"}
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert b"EchoReply" in described.file_descriptor_response.file_descriptor_proto[0]
