"""Hosts as people write them, and what is none."""

from __future__ import annotations

import pytest

from stickyproxy.config.text.addresses import parse_url

RIGHT = "qotm.prod:8080"


@pytest.mark.parametrize(
    "text", ["a..b:80", ".a", "a" * 64, f"grpc://x.{'a' * 64}.y", "qo tm", "qötm", "-x", ""]
)
def test_what_no_resolver_could_ask_for_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no host; right would be qotm"):
        parse_url(text, RIGHT)


@pytest.mark.parametrize(
    "host", ["a" * 63, "qotm_v2", "qotm.prod.svc.cluster.local.", "1.a", "xn--qtm-sna.example"]
)
def test_what_dns_docker_and_kubernetes_call_a_host_is_one(host: str) -> None:
    assert parse_url(f"{host}:80", RIGHT).host == host
