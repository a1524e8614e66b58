"""What changed between two states, as bytes: so that saving a state costs what changed, not what it holds.

Stages never write to the state they are given, so what two states share they share by identity: a part that is the
same object has not changed, and nothing below it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import is_
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from streams.state import StateUnreadable, decode_array, encode_array

State = TypeVar("State")
Value = Any
"""Something inside a state, or its declared type."""
_Patch = list[Any] | None
"""None: unchanged. ["new", value] · ["fields", {name: patch}] · ["items", gone, {key: patch}] ·
["parts", [number of an old part | [number, patch] | [-1, patch], ...]]."""


_FEW = 16
"""Parts that are likened to one another; more are written whole."""


def delta(old: State, new: State) -> bytes:
    """What `apply` makes `new` of, given `old`. Raises as streams.state.pack for what has no place in a state."""
    return msgspec.msgpack.encode(_diff(old, new), enc_hook=encode_array)


def apply(old: State, data: bytes) -> State:
    """The state after the change; `old` stays as it is. Raises StateUnreadable where the bytes do not fit it."""
    try:
        changed: State = _patched(old, msgspec.msgpack.decode(data), type(old))
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StateUnreadable(f"{len(data)} bytes are no change of a {type(old).__name__}: {error}") from error
    return changed


def _diff(old: object, new: object) -> _Patch:
    if new is old:
        return None
    if type(new) is not type(old):
        return ["new", new]
    if isinstance(new, msgspec.Struct) and isinstance(old, msgspec.Struct):
        return _diff_fields(old, new)
    if isinstance(new, dict) and isinstance(old, dict):
        return _diff_items(old, new)
    if isinstance(new, tuple) and isinstance(old, tuple):
        return ["parts", _diff_parts(old, new)]
    same = isinstance(new, int | float | str | bytes) and new == old
    return None if same else ["new", new]


def _diff_fields(old: msgspec.Struct, new: msgspec.Struct) -> _Patch:
    patches = {n: _diff(getattr(old, n), getattr(new, n)) for n in new.__struct_fields__}
    changed = {n: p for n, p in patches.items() if p is not None}
    return ["fields", changed] if changed else None


def _diff_items(old: dict[Any, Any], new: dict[Any, Any]) -> _Patch:
    """Whole where the order changed: a stage may go by it."""
    if len(new) >= len(old) and all(map(is_, old, new)) and all(map(is_, old.values(), new.values())):
        # The usual change of a long memory: it has grown.
        grown = {k: ["new", v] for k, v in islice(new.items(), len(old), None)}
        return ["items", [], grown] if grown else None
    gone = [k for k in old if k not in new]
    added = [k for k in new if k not in old]
    if [*(k for k in old if k in new), *added] != list(new):
        return ["new", new]
    changed = {k: _diff(old[k], v) if k in old else ["new", v] for k, v in new.items() if old.get(k) is not v}
    changed = {k: p for k, p in changed.items() if p is not None}
    return ["items", gone, changed] if gone or changed or added else None


def _diff_parts(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    """Parts that are the same object are told by number. The others, where they are few, change what is left of
    the old, in order: among many hardly any is another's change, and comparing takes longer than writing."""
    numbers = {id(part): i for i, part in enumerate(old)}
    kept = {numbers[id(part)] for part in new if id(part) in numbers}
    few = len(new) - len(kept) <= _FEW
    left = iter([i for i in range(len(old)) if i not in kept] if few else ())
    parts: list[Any] = []
    for part in new:
        if id(part) in numbers:
            parts.append(numbers[id(part)])
        else:
            number = next(left, -1)
            parts.append([number, ["new", part] if number < 0 else _diff(old[number], part)])
    return parts


def _patched(old: Value, patch: _Patch, hint: Value) -> Value:
    if patch is None:
        return old
    kind, *rest = patch
    if kind == "new":
        return msgspec.convert(rest[0], hint, dec_hook=decode_array)
    if kind == "fields":
        hints = get_type_hints(type(old))
        changed = {n: _patched(getattr(old, n), p, hints[n]) for n, p in rest[0].items()}
        return msgspec.structs.replace(old, **changed)
    inner = get_args(_member(hint, type(old)))
    if kind == "items":
        gone, changed = rest
        items = {k: v for k, v in old.items() if k not in set(gone)}
        return items | {k: _patched(old.get(k), p, inner[1]) for k, p in changed.items()}
    return tuple(_part(old, p, inner[0] if Ellipsis in inner else inner[i]) for i, p in enumerate(rest[0]))


def _part(old: Sequence[Value], part: Value, hint: Value) -> Value:
    if isinstance(part, int):
        return old[part]
    number, patch = part
    return _patched(old[number] if number >= 0 else None, patch, hint)


def _member(hint: Value, kind: type) -> Value:
    """The part of a union that is about this type."""
    origin: object = get_origin(hint)
    if origin is Union or origin is UnionType:
        return next(m for m in get_args(hint) if (get_origin(m) or m) is kind)
    return hint
