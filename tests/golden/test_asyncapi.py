"""The AsyncAPI document is valid, up to date, and tells the truth about the messages."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from streams.asyncapi import asyncapi
from streams.contracts.codec import MESSAGES as TYPES
from streams.contracts.codec import encode
from streams.topics import TOPICS
from streams.topology import TOPOLOGY
from tests.golden.matrix import document, releases
from tests.golden.regenerate import DOCS, documents
from tests.samples import SAMPLES

OFFICIAL = json.loads((Path(__file__).parent / "asyncapi" / "3.0.0.json").read_text())
HINT = "run `make golden` and review the diff"


def problems(document_: dict[str, Any]) -> list[str]:
    return [e.json_path for e in jsonschema.Draft7Validator(OFFICIAL).iter_errors(document_)]


def schema_of(document_: dict[str, Any], kind: str) -> jsonschema.Draft7Validator:
    parts = document_["components"]["schemas"]
    return jsonschema.Draft7Validator({"components": {"schemas": parts}, "$ref": f"#/components/schemas/{kind}"})


@pytest.mark.parametrize("path", list(documents()), ids=lambda p: p.name)
def test_what_is_committed_is_what_the_tables_say(path: Path) -> None:
    assert path.read_text() == documents()[path], HINT


def test_it_is_valid_by_the_official_schema() -> None:
    assert problems(asyncapi()) == []


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (("operations", "dedup.receive.fleet.events", "action"), "eat"),
        (("channels", "fleet.events", "bindings", "kafka", "partitions"), 0),
        (("components", "messages", "Telemetry", "payload"), {"type": "vehicle"}),
        (("info",), {}),
    ],
)
def test_the_official_schema_finds_what_is_wrong(at: tuple[str, ...], wrong: object) -> None:
    """The check itself can fail."""
    broken = copy.deepcopy(asyncapi())
    inner = broken
    for part in at[:-1]:
        inner = inner[part]
    inner[at[-1]] = wrong
    assert problems(broken)


def test_every_topic_and_every_end_of_a_stage_is_told() -> None:
    told = asyncapi()
    assert list(told["channels"]) == [t.name for t in TOPICS]
    ends = {(o["tags"][0]["name"], o["action"], o["channel"]["$ref"]) for o in told["operations"].values()}
    names = set(told["channels"])
    reads = {(n.stage, "receive", f"#/channels/{s}") for n in TOPOLOGY for s in n.reads if s in names}
    assert ends == reads | {(n.stage, "send", f"#/channels/{s}") for n in TOPOLOGY for s in n.writes if s in names}


def test_every_reference_leads_somewhere() -> None:
    told = asyncapi()
    for reference in references(told):
        inner: Any = told
        for part in reference.removeprefix("#/").split("/"):
            assert part in inner, reference
            inner = inner[part]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for inner in value.values() for r in references(inner)]
    return [r for inner in value for r in references(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_messages_are_valid_by_their_schema(name: str) -> None:
    validator = schema_of(asyncapi(), type(SAMPLES[name]).__name__)
    headers, value = encode(SAMPLES[name])
    validator.validate(msgspec.json.decode(value))
    texts = {key: text.decode() for key, text in headers}
    jsonschema.validate(texts, asyncapi()["components"]["messageTraits"]["cloudEvent"]["headers"])


@pytest.mark.parametrize("name", SAMPLES)
def test_the_schema_refuses_what_the_codec_refuses(name: str) -> None:
    """A required field missing, or of another type."""
    validator = schema_of(asyncapi(), type(SAMPLES[name]).__name__)
    built = msgspec.json.decode(encode(SAMPLES[name])[1])
    required = asyncapi()["components"]["schemas"][type(SAMPLES[name]).__name__]["required"]
    for field in required:
        assert not validator.is_valid({k: v for k, v in built.items() if k != field}), field
        assert not validator.is_valid(built | {field: [[]]}), field


@pytest.mark.parametrize("version", releases())
@pytest.mark.parametrize("name", SAMPLES)
def test_released_readers_take_todays_messages(version: str, name: str) -> None:
    """Forward: the schema that was released passes over fields that are new."""
    released = document(version)
    kind = type(SAMPLES[name]).__name__
    if kind not in released["components"]["schemas"]:
        pytest.skip(f"{kind} is newer than {version}")
    schema_of(released, kind).validate(msgspec.json.decode(encode(SAMPLES[name])[1]))


def test_the_documents_lie_beside_the_decisions() -> None:
    assert (DOCS / "asyncapi.json").stat().st_size > 10_000
    assert len(asyncapi()["components"]["messages"]) == len(TYPES)
