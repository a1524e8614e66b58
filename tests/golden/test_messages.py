"""What is on the wire does not change by accident, and every version that was released stays readable."""

from __future__ import annotations

import msgspec
import pytest

from streams.contracts.codec import MESSAGES as TYPES
from streams.contracts.codec import decode, encode, type_of
from tests.golden.matrix import read
from tests.golden.regenerate import MESSAGES, golden_bytes, golden_path
from tests.samples import SAMPLES, T0

HINT = "run `python -m tests.golden.regenerate` and review the diff"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_bytes_on_the_wire_are_the_golden_ones(name: str) -> None:
    assert golden_path(SAMPLES[name]).read_bytes() == golden_bytes(SAMPLES[name]), HINT


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_decode_to_the_message(name: str) -> None:
    assert read(golden_path(SAMPLES[name])) == SAMPLES[name]


def test_every_file_decodes_and_every_type_has_one() -> None:
    found = {type_of(read(path)) for path in MESSAGES.glob("*.json")}
    assert found == set(TYPES)


@pytest.mark.parametrize("name", SAMPLES)
def test_unknown_fields_are_passed_over(name: str) -> None:
    headers, value = encode(SAMPLES[name])
    grown = msgspec.json.encode(msgspec.json.decode(value) | {"a_field_of_next_year": [1, {"x": 2}]})
    assert decode(headers, grown, T0) == SAMPLES[name]
