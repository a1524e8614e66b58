"""A stage's state as bytes and back: MessagePack of typed structs, arrays included. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

import msgspec
import numpy as np

State = TypeVar("State")
_Item = TypeVar("_Item")


class StateUnreadable(ValueError):
    """Stored state that does not fit the stage: start it anew and replay its topics, or use the matching code."""


def pack(state: object) -> bytes:
    """The bytes of a state; equal states give equal bytes, in whatever order dictionaries and sets were filled."""
    return msgspec.msgpack.encode(state, enc_hook=encode_array, order="deterministic")


SLICE = 256
"""Elements that are written in one go: some milliseconds, as large as they come."""


def packed(state: object) -> Iterator[bytes]:
    """What `pack` gives, piece by piece: a large state written in one go stops all other work for that long."""
    if type(state) is dict:
        keys = sorted(state)
        yield _head(0x80, 0xDE, len(keys))
        if len(keys) > SLICE:
            yield from (_body({key: state[key] for key in some}) for some in _slices(keys))
        else:
            yield from _all(chain.from_iterable((key, state[key]) for key in keys))
    elif type(state) is tuple or type(state) is list:
        yield _head(0x90, 0xDC, len(state))
        yield from map(_body, _slices(state)) if len(state) > SLICE else _all(state)
    elif isinstance(state, msgspec.Struct) and _is_map(state.__struct_config__):
        yield _head(0x80, 0xDE, len(state.__struct_fields__))
        values = [getattr(state, name) for name in state.__struct_fields__]
        yield from _all(chain.from_iterable(zip(state.__struct_encode_fields__, values, strict=True)))
    else:
        yield pack(state)


def _all(some: Iterable[object]) -> Iterator[bytes]:
    for one in some:
        yield from packed(one)


def _slices(some: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (some[i : i + SLICE] for i in range(0, len(some), SLICE))


def _is_map(config: msgspec.structs.StructConfig) -> bool:
    """Whether a struct is written as a map of all its fields, and nothing else."""
    return not (config.array_like or config.omit_defaults or config.tag)


def _head(few: int, many: int, number: int) -> bytes:
    """Of a map or an array of so many."""
    if number < 16:
        return bytes([few | number])
    return bytes([many]) + number.to_bytes(2) if number < 1 << 16 else bytes([many + 1]) + number.to_bytes(4)


def _body(some: object) -> bytes:
    """Of a map or an array of at most SLICE, without the head."""
    data = pack(some)
    return data[1:] if data[0] < 0xA0 else data[3:]


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
