"""Every codec is accepted by passing every law of its protocol."""

from __future__ import annotations

from types import ModuleType

import pytest

from contract import laws_endings, laws_flow, laws_messages, laws_pair, laws_tunnel
from contract.harness import Factory, Law
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.codec.reference import ReferenceCodec

HTTP2: dict[str, Factory] = {"reference": ReferenceCodec, "fast": FastCodec}
ANY: dict[str, Factory] = {**HTTP2, "http1": Http1Codec}


def laws(*modules: ModuleType) -> list[Law]:
    return [
        law
        for module in modules
        for name, law in vars(module).items()
        if name.startswith("law_") and law.__module__ == module.__name__
    ]


HTTP2_LAWS = laws(laws_messages, laws_flow, laws_endings)
PAIR_LAWS = laws(laws_pair, laws_tunnel)


@pytest.mark.parametrize("law", HTTP2_LAWS, ids=lambda law: law.__name__[4:])
@pytest.mark.parametrize("codec", HTTP2)
def test_http2_law(codec: str, law: Law) -> None:
    law(HTTP2[codec])


@pytest.mark.parametrize("law", PAIR_LAWS, ids=lambda law: law.__name__[4:])
@pytest.mark.parametrize("codec", ANY)
def test_pair_law(codec: str, law: Law) -> None:
    law(ANY[codec])
