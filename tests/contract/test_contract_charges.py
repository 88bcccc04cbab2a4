"""What a peer makes a codec do in vain has its price, and what is ordinary has none."""

from __future__ import annotations

import pytest

from contract.harness import REQUEST, RESPONSE, RawPeer, raw_server
from contract.test_contract_laws import HTTP2
from contract.test_contract_verdicts import connection
from stickyproxy.codec import limits as guard
from stickyproxy.codec.api import Codec
from support import rawframes as raw

SMALL = guard.COST_SMALL_FRAME
CHARGED = {
    "GOAWAY": (raw.goaway(0), SMALL),
    "SETTINGS acknowledged": (raw.settings_ack(), SMALL),
    "SETTINGS": (raw.settings(), guard.COST_SETTINGS),
    "PRIORITY": (raw.frame(raw.PRIORITY, 0, 15, bytes(5)), SMALL),
    "unknown": (raw.frame(0x20, 0, 0, b"junk"), SMALL),
    "empty DATA": (raw.data(13, b""), guard.COST_EMPTY_DATA),
    "empty DATA with padding": (raw.data(13, b"", padding=9), guard.COST_EMPTY_DATA),
    "RST_STREAM again": (raw.rst(7, 8), SMALL),
    "RST_STREAM of a request": (raw.rst(13, 8), guard.COST_RESET),
}


@pytest.mark.parametrize("name", CHARGED)
@pytest.mark.parametrize("codec", HTTP2)
def test_each_frame_in_vain_is_charged(codec: str, name: str) -> None:
    frame, price = CHARGED[name]
    peer = connection(HTTP2[codec])
    before = peer.codec.cost
    peer.send(frame * 3)
    once = name.endswith("of a request")  # the others then are late
    expected = price + 2 * SMALL if once else 3 * price
    assert expected <= peer.codec.cost - before <= expected + 3  # open streams cost a little more


@pytest.mark.parametrize("codec", HTTP2)
def test_continuation_is_charged_by_the_frame(codec: str) -> None:
    peer = connection(HTTP2[codec])
    before = peer.codec.cost
    head = peer.headers(15, REQUEST, end=True, piece=2)
    peer.send(head)
    pieces = len(raw.parse(head)) - 1
    assert pieces > 1
    assert peer.codec.cost == before + pieces * SMALL


@pytest.mark.parametrize("frame", [raw.ping(bytes(8)), raw.window_update(0, 1)])
@pytest.mark.parametrize("codec", HTTP2)
def test_data_of_ours_pays_for_pings_and_window_updates(codec: str, frame: bytes) -> None:
    """Libraries of gRPC measure a path by a PING each round trip for as long as data comes."""
    peer = connection(HTTP2[codec])
    peer.codec.send_headers(13, RESPONSE, end_stream=False)
    unpaid = guard.WINDOW_UPDATES_PER_DATA
    peer.send(frame * unpaid)  # what every connection has for nothing
    before = peer.codec.cost
    for _ in range(5):
        peer.codec.send_data(13, b"message", end_stream=False)
        peer.send(frame * unpaid)
    assert peer.codec.cost == before
    peer.send(frame)
    assert peer.codec.cost > before


def asked(codec: str) -> tuple[RawPeer, Codec, int]:
    """A client of ours with one request under way."""
    peer = raw_server(HTTP2[codec])
    stream = peer.codec.open_stream(REQUEST, end_stream=True)
    peer.collect()
    return peer, peer.codec, stream


@pytest.mark.parametrize("codec", HTTP2)
def test_a_backend_may_reset_what_it_was_asked(codec: str) -> None:
    """An early answer and then NO_ERROR is how a server declines the rest of an upload."""
    peer, client, stream = asked(codec)
    before = client.cost
    peer.send(raw.rst(stream, 0))
    assert client.cost == before


@pytest.mark.parametrize("codec", HTTP2)
def test_one_informational_head_is_free_and_the_next_is_not(codec: str) -> None:
    peer, client, stream = asked(codec)
    before = client.cost
    peer.send(peer.headers(stream, [(b":status", b"103")]))
    assert client.cost == before
    peer.send(peer.headers(stream, [(b":status", b"103")]))
    assert client.cost == before + guard.COST_INFORMATIONAL
