"""The contract against codecs that are wrong on purpose: a law that nothing breaks proves nothing."""

from __future__ import annotations

from functools import cache
from typing import cast

import pytest

from contract.harness import Factory, Law
from contract.mutants import MUTANTS, Mutant
from contract.test_contract_laws import HTTP2, HTTP2_LAWS, PAIR_LAWS
from stickyproxy.codec.api import Codec, CodecLimits


def mutated(kind: type[Mutant], codec: str) -> Factory:
    def make(client: bool, limits: CodecLimits) -> Codec:
        return cast("Codec", kind(HTTP2[codec](client, limits)))

    return make


def broken_laws(make: Factory) -> set[str]:
    found = set()
    for law in [*HTTP2_LAWS, *PAIR_LAWS]:
        try:
            law(make)
        except Exception:  # noqa: BLE001 - however it shows, the mutant was noticed
            found.add(name_of(law))
    return found


@cache
def broken_by_the_codec_itself(codec: str) -> set[str]:
    return broken_laws(HTTP2[codec])


def name_of(law: Law) -> str:
    return law.__name__.removeprefix("law_")


FOUND_BY = {
    "CreditLost": "granted_credit_is_never_lost",
    "CreditTwice": "stream_credit_waits_for_its_grant",
    "PaddingIgnored": "padding_is_credited_with_its_data",
    "EndInferred": "end_comes_from_the_frame_and_not_from_content_length",
    "PeersCodeChanged": "peer_reset_keeps_its_code_at_the_server",
    "OurCodeChanged": "our_reset_carries_its_code",
    "ResetTakenForTheEnd": "peer_reset_keeps_its_code_at_the_client",
    "RefusalForgotten": "streams_below_the_peers_goaway_run_on",
    "TrailersCutInTwo": "what_is_sent_is_what_was_said",
    "TrailersOnlyCutInTwo": "trailers_only_is_sent_as_one_frame",
    "GoawayKillsAll": "streams_below_the_peers_goaway_run_on",
    "GoawayIgnored": "streams_below_the_peers_goaway_run_on",
    "DeafAfterOurGoaway": "our_drain_in_two_steps_loses_nothing",
    "CapacityBeforeSettings": "no_stream_before_the_settings",
    "WindowNeverNegative": "window_follows_settings_even_below_nothing",
    "InformationalTakenForTheHead": "informational_heads_come_before_the_head",
    "TrailersDropped": "response_is_head_body_and_trailers",
    "FieldsSorted": "order_of_fields_is_kept",
    "OversizeNotTold": "oversize_list_is_told_and_answerable",
    "RejectedAnyway": "malformed_request_costs_its_stream_only",
    "PongSwallowed": "ping_is_answered_and_pong_is_told",
    "OutputLosesPings": "ping_is_answered_and_pong_is_told",
}


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("codec", HTTP2)
def test_mutant_is_found_by_the_law_meant_for_it(codec: str, kind: type[Mutant]) -> None:
    found = broken_laws(mutated(kind, codec)) - broken_by_the_codec_itself(codec)
    assert FOUND_BY[kind.__name__] in found


@pytest.mark.parametrize("codec", HTTP2)
def test_wrapping_alone_breaks_nothing(codec: str) -> None:
    assert broken_laws(mutated(Mutant, codec)) == broken_by_the_codec_itself(codec)
