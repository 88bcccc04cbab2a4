"""The demo's server on its own, as in a pod."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import grpc

from stickyproxy.demo.servers import SERVICE, EchoReply, EchoRequest


def test_at_an_address_of_its_own_it_outlives_its_stdin_and_ends_by_sigterm() -> None:
    command = [sys.executable, "-m", "stickyproxy.demo.servers", "pod-1", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            bind = json.loads(process.stdout.readline())["bind"]
            with grpc.insecure_channel(bind) as channel:
                say = channel.unary_unary(
                    f"/{SERVICE}/Say",
                    request_serializer=EchoRequest.SerializeToString,
                    response_deserializer=EchoReply.FromString,
                )
                answer = say(EchoRequest(text="hi"), timeout=30, wait_for_ready=True)
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
        finally:
            process.kill()

    assert (answer.backend, answer.text) == ("pod-1", "hi")
    assert code == 0
