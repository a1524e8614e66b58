"""A real Kafka; without Java and Maven a skip that says why, in CI a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fleet.kafka import NativeKafka, missing_tools


@contextmanager
def native_broker() -> Iterator[NativeKafka]:
    """On a free port; its data go with it."""
    if missing := missing_tools():
        reason = f"a native Kafka needs {' and '.join(missing)}: install a JRE 17 and Maven"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    kafka = NativeKafka().prepare().start()
    try:
        yield kafka
    finally:
        kafka.remove()
