"""A real Kafka for this session; without Java and Maven a skip that says why, in CI a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fleet.kafka import NativeKafka, missing_tools


@pytest.fixture(scope="session")
def broker() -> Iterator[NativeKafka]:
    """A broker on a free port; its data go when the session ends."""
    missing = missing_tools()
    if missing:
        reason = f"a native Kafka needs {' and '.join(missing)}: install a JRE 17 and Maven"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    kafka = NativeKafka().prepare().start()
    try:
        yield kafka
    finally:
        kafka.remove()
