"""What a change of the contracts breaks: two AsyncAPI documents of asyncapi.py, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SAME = ("type", "pattern", "contentEncoding", "$ref", "allOf", "anyOf")
_INSIDE = ("items", "additionalProperties", "propertyNames")


def breaks(released: Json, today: Json) -> list[str]:
    """What of the released messages today's readers would refuse or lose: must be empty."""
    old, new = released["components"], today["components"]
    found = [f"message {_named(m)} is gone" for m in _names(old) - _names(new)]
    for name in sorted(old["schemas"]):
        if name not in new["schemas"]:
            found.append(f"{name} is gone")
        else:
            found += _narrower(name, old["schemas"][name], new["schemas"][name])
    return sorted(found)


def refusals(released: Json, today: Json) -> list[str]:
    """What of today's messages the released readers would refuse (they pass over unknown fields): vehicles in the
    field are such readers, so it must be known before it is sent to them."""
    old, new = released["components"]["schemas"], today["components"]["schemas"]
    return sorted(
        line
        for name in sorted(set(old) & set(new))
        for line in _narrower(name, new[name], old[name])
        if not line.endswith(" is gone")
    )


def _names(components: Json) -> set[str]:
    return {message["name"] for message in components["messages"].values()}


def _named(name: str) -> str:
    return name.removeprefix("fleetwheel.")


def _narrower(at: str, writer: Json, reader: Json) -> Iterator[str]:
    """Where `reader` takes less than what `writer` may write."""
    yield from (
        f"{at}: {key} was {writer.get(key)}, is {reader.get(key)}" for key in _SAME if _differ(key, writer, reader)
    )
    yield from (f"{at}: {key} {reader[key]}" for key in _AT_MOST if key in reader and _over(writer, reader, key))
    yield from (f"{at}: {key} {reader[key]}" for key in _AT_LEAST if key in reader and _under(writer, reader, key))
    if "enum" in reader:
        for value in sorted(set(writer.get("enum", ())) - set(reader["enum"])):
            yield f"{at}: {value!r} is no value"
    yield from _fields(at, writer, reader)
    for key in _INSIDE:
        if isinstance(writer.get(key), Mapping) and isinstance(reader.get(key), Mapping):
            yield from _narrower(f"{at}.{key}", writer[key], reader[key])


def _fields(at: str, writer: Json, reader: Json) -> Iterator[str]:
    wrote, reads = writer.get("properties", {}), reader.get("properties", {})
    yield from (f"{at}.{name} is gone" for name in wrote if name not in reads)
    certain = set(writer.get("required", ()))
    yield from (f"{at}.{name} is required" for name in reader.get("required", ()) if name not in certain)
    for name in wrote:
        if name in reads:
            yield from _narrower(f"{at}.{name}", wrote[name], reads[name])


def _differ(key: str, writer: Json, reader: Json) -> bool:
    if key == "type" and isinstance(reader.get("type"), list):
        return writer.get("type") not in (reader["type"], *reader["type"])
    return bool(writer.get(key) != reader.get(key))


def _over(writer: Json, reader: Json, key: str) -> bool:
    return bool(writer.get(key, float("inf")) > reader[key])


def _under(writer: Json, reader: Json, key: str) -> bool:
    return bool(writer.get(key, float("-inf")) < reader[key])
