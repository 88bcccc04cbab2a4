"""HPACK's Huffman code (RFC 7541 §5.2, Appendix B), decoded a byte at a time.

A state is how far we are inside a code: for each byte that may come, the symbols which that byte
completes and the state it leads to. Steps are worked out when they are first met; ordinary text uses
a few thousand of the 65,536 that there are (256 inner nodes of the code's tree times 256 bytes). The
code itself is hpack's.

Two lists a state and no object a step: what a step is made of is shared with others, and the CPU's
cache holds more of it (a tuple for each step took 1.5 times as long, after other work twice).
"""

from __future__ import annotations

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

_EOS = 256
_PADDING_BITS = 7  # RFC 7541 §5.2: padding longer than 7 bits is an error

_State = tuple[list[bytes | None], list["_State | None"]]
"""What each byte completes, and where it leads; None: a step that nobody took before."""


class HuffmanError(Exception):
    """The string is no Huffman string: EOS inside, or padding that is not the start of EOS."""


def _tree() -> list[list[int]]:
    """Nodes as [child for 0, child for 1]; a leaf is ~symbol."""
    nodes: list[list[int]] = [[0, 0]]
    codes = zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)
    for symbol, (code, length) in enumerate(codes):
        at = 0
        for position in range(length - 1, 0, -1):
            bit = code >> position & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = ~symbol
    return nodes


_NODES = _tree()
_states: list[_State] = [([None] * 256, [None] * 256) for _ in _NODES]
_start = _states[0]
_node_of = {id(state): node for node, state in enumerate(_states)}
_shared: dict[bytes, bytes] = {}
"""What steps complete, each once."""


def _endings() -> frozenset[int]:
    """States in which a string may end: on a boundary, or within seven ones of padding."""
    at = 0
    found = {0}
    for _ in range(_PADDING_BITS):
        at = _NODES[at][1]
        found.add(at)
    return frozenset(id(_states[node]) for node in found)


_ENDINGS = _endings()


def _learn(data: bytes) -> None:
    """Work out every step that this string takes."""
    state = _start
    for byte in data:
        state = state[1][byte] or _work_out(state, byte)


def _work_out(state: _State, byte: int) -> _State:
    """Where it leads; from then on known."""
    at = _node_of[id(state)]
    symbols = bytearray()
    for position in range(7, -1, -1):
        at = _NODES[at][byte >> position & 1]
        if at < 0:
            if ~at == _EOS:
                raise HuffmanError("EOS inside a string")
            symbols.append(~at)
            at = 0
    completed = bytes(symbols)
    state[0][byte] = _shared.setdefault(completed, completed)
    state[1][byte] = _states[at]
    return _states[at]


def decode(data: bytes) -> bytes:
    """The decoded string.

    Raises:
        HuffmanError: where the code is broken.

    """
    state: _State | None = _start
    symbols, following = _start
    out: list[bytes | None] = []
    try:
        for byte in data:
            # As a method: CPython has an instruction for that, bound to a name it has not.
            out.append(symbols[byte])
            state = following[byte]
            symbols, following = state  # type: ignore[misc] # None is the exception
    except TypeError:  # a step that nobody took before
        _learn(data)
        return decode(data)
    if id(state) not in _ENDINGS:
        raise HuffmanError("a string ends inside a code")
    return b"".join(out)  # type: ignore[arg-type] # after a step that was taken there is none
