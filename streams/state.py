"""A stage's state as bytes and back: MessagePack of typed structs, arrays included. Nothing is unpickled."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

State = TypeVar("State")


class StateUnreadable(ValueError):
    """Stored state that does not fit the stage: start it anew and replay its topics, or use the matching code."""


def pack(state: object) -> bytes:
    """The bytes of a state; equal states give equal bytes, in whatever order dictionaries and sets were filled."""
    return msgspec.msgpack.encode(state, enc_hook=encode_array, order="deterministic")


def unpack(data: bytes, state: type[State]) -> State:
    """The state that `pack` wrote. Raises StateUnreadable for other bytes."""
    try:
        return msgspec.msgpack.decode(data, type=state, dec_hook=decode_array)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise StateUnreadable(f"{len(data)} bytes are not a {state.__name__}: {error}") from error


def encode_array(value: object) -> object:
    """msgspec's enc_hook for states."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    raise NotImplementedError(f"{type(value).__name__} has no place in a state")


def decode_array(_kind: type, value: tuple[str, list[int], bytes]) -> object:
    """msgspec's dec_hook for states."""
    dtype, shape, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
