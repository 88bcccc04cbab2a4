"""Who is trusted to say by a PROXY header who connects."""

from __future__ import annotations

import pytest

from stickyproxy.control.announcing import announced_from

NEAR = (
    "127.0.0.1",
    "10.2.3.4",
    "172.31.0.1",
    "192.168.1.1",
    "100.64.0.9",
    "fd00::1",
    "fe80::1",
    "::1",
)
FAR = ("8.8.8.8", "172.32.0.1", "100.128.0.1", "192.167.0.1", "2001:db8::1", "", "11.0.0.1")


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("module", [True, False])
def test_where_nobody_is_named_private_addresses_are_believed_if_proxy_is_asked_for(
    always: bool, module: bool
) -> None:
    announces = announced_from((), always=always, asked=lambda: module)

    assert [announces(one) for one in NEAR] == [always or module] * len(NEAR)
    assert not any(announces(one) for one in FAR), "strangers and unix sockets never"


@pytest.mark.parametrize("always", [True, False])
def test_who_is_named_is_believed_on_every_port_and_nobody_else(always: bool) -> None:
    announces = announced_from(("192.0.2.0/24", "unix"), always=always, asked=lambda: True)

    assert [announces(one) for one in ("192.0.2.9", "", "10.0.0.1", "127.0.0.1")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_module_that_begins_to_ask_is_heard_at_once() -> None:
    said: list[bool] = []
    announces = announced_from((), always=False, asked=lambda: bool(said))

    assert not announces("10.0.0.1")
    said.append(True)
    assert announces("10.0.0.1")
