"""The AsyncAPI 3 document of all topics, made from the tables and the contracts: what others integrate by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from streams.contracts.codec import MESSAGES, Message
from streams.topics import BY_NAME, TOPICS, Topic
from streams.topology import TOPOLOGY, Node

Json = dict[str, Any]
SCHEMA = "#/components/schemas/{name}"
HEADERS = ("ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "content-type")
"""CloudEvents 1.0, Kafka binding, binary mode."""
DESCRIPTION = (
    "Topics of the fleet-learning wheel: CloudEvents 1.0 in Kafka's binary mode, JSON data. "
    "Unknown fields are passed over; what is out of bounds goes to fleet.dead-letter."
)


def asyncapi() -> Json:
    """The document. Equal tables give equal documents."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fleetwheel",
            "version": version("fleetwheel"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations(TOPOLOGY)),
        "components": {
            "messages": {kind.__name__: _message(name, kind) for name, kind in MESSAGES.items()},
            "messageTraits": {"cloudEvent": {"headers": _headers()}},
            "schemas": message_schemas(MESSAGES.values()),
        },
    }


def message_schemas(kinds: Iterable[type[Message]]) -> dict[str, Json]:
    """JSON schemas (draft 7, which AsyncAPI 3 builds on) of messages and their parts, by class name."""
    _, components = msgspec.json.schema_components(kinds, ref_template=SCHEMA)
    return {name: _draft_7(components[name]) for name in sorted(components)}


def _channel(topic: Topic) -> Json:
    carried = [kind.__name__ for kind in topic.carries]
    return {
        "address": topic.name,
        "description": f"Carries {', '.join(carried)}; keyed by {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in carried},
        "bindings": {"kafka": _kafka_binding(topic)},
    }


def _kafka_binding(topic: Topic) -> Json:
    return {
        "topic": topic.name,
        "partitions": topic.partitions,
        "topicConfiguration": {
            "cleanup.policy": ["compact" if topic.compacted else "delete"],
            "retention.ms": topic.retention_ms,
            "max.message.bytes": topic.max_bytes,
        },
        "bindingVersion": "0.5.0",
    }


def _operations(topology: Iterable[Node]) -> Iterable[tuple[str, Json]]:
    """What each stage takes from and writes to topics; edges inside the process are nobody else's concern."""
    for node in topology:
        for action, verb, streams in (("receive", "takes", node.reads), ("send", "writes", node.writes)):
            for stream in (s for s in streams if s in BY_NAME):
                yield (
                    f"{node.stage}.{action}.{stream}",
                    {
                        "action": action,
                        "channel": {"$ref": f"#/channels/{stream}"},
                        "summary": f"The stage {node.stage} {verb} these.",
                        "tags": [{"name": node.stage}],
                    },
                )


def _message(name: str, kind: type[Message]) -> Json:
    topics = [topic for topic in TOPICS if kind in topic.carries]
    return {
        "name": name,
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": SCHEMA.format(name=kind.__name__)},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The value of {topics[0].key}."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _headers() -> Json:
    texts: Mapping[str, Json] = {name: {"type": "string"} for name in HEADERS}
    described = {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": {"type": "string", "description": "Which message it is, with its version."},
        "ce_id": {"type": "string", "description": "The idempotency key: equal for every re-send."},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"type": "string", "const": "application/json"},
    }
    return {"type": "object", "properties": {**texts, **described}, "required": list(HEADERS)}


def _draft_7(schema: Json) -> Json:
    """msgspec writes draft 2020-12: tuples and the neighbours of a reference are told in another way, and the end
    of a text in Python's expressions is \\Z."""
    told = {key: _within(value) for key, value in schema.items() if key not in ("prefixItems", "items", "$ref")}
    if "prefixItems" in schema:
        told |= {"items": _within(schema["prefixItems"]), "additionalItems": schema.get("items", True)}
    elif "items" in schema:
        told["items"] = _within(schema["items"])
    if "$ref" in schema:
        reference = {"$ref": schema["$ref"]}
        told = {"allOf": [reference], **told} if told else reference
    if isinstance(pattern := told.get("pattern"), str):
        told["pattern"] = pattern.replace("\\Z", "$")
    return told


def _within(value: object) -> object:
    if isinstance(value, list):
        return [_within(part) for part in value]
    return _draft_7(value) if isinstance(value, dict) else value
