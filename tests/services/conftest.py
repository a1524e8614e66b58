"""The broker that this session's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.kafka import NativeKafka
from tests.services.broker import native_broker


@pytest.fixture(scope="session")
def broker() -> Iterator[NativeKafka]:
    """Topics have a prefix of their own in each test."""
    with native_broker() as kafka:
        yield kafka
