"""Where h2 gives a broken frame or field block another code than RFC 9113 does."""

from __future__ import annotations

from h2.connection import _decode_headers
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, FrameDataMissingError, ProtocolError
from h2.frame_buffer import FrameBuffer
from hpack import Decoder
from hyperframe.frame import Frame, SettingsFrame

from stickyproxy.model import Headers

_ACK = 0x1


class Frames(FrameBuffer):
    """An acknowledgement with a payload has a wrong size (RFC 9113 §6.5), not wrong content.

    `continuations` are those of the blocks that were whole since somebody looked.
    """

    def __init__(self, *, server: bool) -> None:
        super().__init__(server=server)
        self.continuations = 0

    @property
    def amid_block(self) -> bool:
        return bool(self._headers_buffer)

    def _update_header_buffer(self, frame: Frame | None) -> Frame | None:
        pieces = len(self._headers_buffer)
        whole = super()._update_header_buffer(frame)
        if whole is not None:
            self.continuations += pieces
        return whole

    def _validate_frame_length(self, length: int) -> None:
        super()._validate_frame_length(length)
        kind, flags = self._data[3:5]
        if kind == SettingsFrame.type and flags & _ACK and length:
            message = "a SETTINGS acknowledgement with a payload"
            raise FrameDataMissingError(message)


class CompressionError(ProtocolError):
    """RFC 9113 §4.3: a block that cannot be decoded has a code of its own."""

    error_code = ErrorCodes.COMPRESSION_ERROR


def decode_block(decoder: Decoder, block: bytes) -> Headers:
    """The fields of a whole block. Raises CompressionError, or DenialOfServiceError if too large."""
    try:
        return [(name, value) for name, value in _decode_headers(decoder, block)]
    except DenialOfServiceError:
        raise
    except ProtocolError as error:
        raise CompressionError(str(error)) from error
