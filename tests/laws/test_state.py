"""A state's bytes: the same in one go and piece by piece, whatever it is made of."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.state import SLICE, pack, packed, unpack


class Inner(msgspec.Struct, frozen=True):
    ids: dict[str, int] = {}
    items: tuple[Any, ...] = ()


class Short(msgspec.Struct, frozen=True, array_like=True):
    one: int
    two: str


class Tagged(msgspec.Struct, frozen=True, tag="kind"):
    one: int


class Sparse(msgspec.Struct, frozen=True, omit_defaults=True):
    one: int = 1
    two: int = 2


class Renamed(msgspec.Struct, frozen=True, rename="camel"):
    long_name: int
    inner: Inner = Inner()


class Array(msgspec.Struct, frozen=True):
    rows: NDArray[np.float64]


_sizes = st.sampled_from([0, 1, 15, 16, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 3])
_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=5),
    st.binary(max_size=40), st.frozensets(st.integers(), max_size=3),
    st.builds(Short, st.integers(0, 9), st.text(max_size=3)), st.builds(Tagged, st.integers(0, 9)),
    st.builds(Sparse, st.integers(0, 2)),
)  # fmt: skip
_states = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.builds(Inner, st.dictionaries(st.text(), st.integers(0, 9)), st.lists(inner, max_size=3).map(tuple)),
        st.builds(Renamed, st.integers(0, 9), st.builds(Inner)),
        st.tuples(inner, _sizes).map(lambda one: (one[0],) * one[1]),
        st.tuples(inner, _sizes).map(lambda one: {f"{i % 7}/{i}": one[0] for i in range(one[1])}),
    ),
    max_leaves=6,
)


@given(_states)
def test_pieces_are_the_whole(state: object) -> None:
    assert b"".join(packed(state)) == pack(state)


def test_large_ones_come_in_many_pieces() -> None:
    rng = np.random.default_rng(1)
    state = Inner(
        {f"{i * 7919 % 100_003}": i for i in range(70_000)},
        (Array(rng.normal(size=(40, 3))), *(Short(i, "x" * 30) for i in range(70_000))),
    )
    pieces = list(packed(state))
    whole = b"".join(pieces)
    assert whole == pack(state)
    assert max(map(len, pieces)) < len(whole) / 200
    assert len(unpack(whole, Inner).ids) == 70_000


def test_what_has_no_place_in_a_state_is_refused_in_both() -> None:
    with pytest.raises(NotImplementedError, match="no place in a state"):
        pack({"a": object()})
    with pytest.raises(NotImplementedError, match="no place in a state"):
        list(packed({"a": object()}))
