"""The updater's decisions, as values."""

from __future__ import annotations

from typing import Any

import pytest

from edge.agent.updates import (
    Conditions,
    Do,
    Installed,
    Phase,
    Policy,
    State,
    committed,
    downloading,
    next_step,
    observed,
    offered,
    rolled_back,
    staged,
    switched,
    unmet,
    wanted,
)
from streams.contracts.ids import bucket
from streams.contracts.jobs import Release
from streams.contracts.releases import Rollout, RolloutState

POLICY = Policy(healthy_frames=3, unhealthy_frames=2, window_s=10, max_boots=2)
PARKED = Conditions(parked=True)


def release(version: int) -> Release:
    return Release(version, f"m{version}", f"b{version}", "0" * 64, 1, "hw")


def installed(version: int, proven: bool = True) -> Installed:
    return Installed(version, f"m{version}", {}, proven)


def rollout(state: RolloutState = RolloutState.CANARY, **changes: Any) -> Rollout:
    fields: dict[str, Any] = {"previous": release(1), "share": 0.3, "control_share": 0.3}
    return Rollout("r1", "hw", 1, state, release(2), **(fields | changes))


def vehicle(low: float, high: float) -> str:
    return next(name for name in map(str, range(1000)) if low <= bucket("r1", name) < high)


def step(state: State, conditions: Conditions = PARKED, now_ns: int = 0) -> Do:
    return next_step(state, conditions, POLICY, now_ns)[0]


RUNNING = State(Phase.COMMITTED, "a", installed(1), wanted=release(1), highest=1)


def test_who_gets_the_release() -> None:
    canary, rest, control = vehicle(0, 0.3), vehicle(0.3, 0.7), vehicle(0.7, 1)
    assert wanted(rollout(), canary, None) == release(2)
    assert wanted(rollout(), rest, None) == release(1)
    assert wanted(rollout(), control, None) == release(1)
    assert wanted(rollout(RolloutState.WAVE, share=1.0), rest, None) == release(2)
    assert wanted(rollout(RolloutState.WAVE, share=1.0), control, None) == release(1)
    assert wanted(rollout(RolloutState.COMPLETE), control, None) == release(2)
    assert wanted(rollout(RolloutState.HALTED), canary, release(2)) == release(1)
    assert wanted(rollout(RolloutState.PAUSED), canary, release(2)) == release(2)
    assert wanted(rollout(RolloutState.PAUSED), rest, release(1)) == release(1)
    assert wanted(rollout(previous=None), rest, release(7)) == release(7)


def test_the_way_of_an_update() -> None:
    state = offered(RUNNING, release(2))
    assert step(state) is Do.DOWNLOAD
    state = staged(downloading(state), installed(2, proven=False))
    assert state.active == "a" and step(state) is Do.SWITCH
    state = switched(state)
    assert (state.phase, state.active, state.highest) == (Phase.PROBATION, "b", 2)
    assert step(state) is Do.NOTHING
    for i in range(3):
        state = observed(state, i, healthy=True)
    assert step(state) is Do.COMMIT
    state = committed(state)
    assert state.b is not None and state.b.proven and step(state) is Do.NOTHING


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(parked=False), "not parked"),
        (Conditions(parked=True, charge=0.29), "charge 29% below 30%"),
        (Conditions(parked=True, temperature_c=80), "computer at 80 C above 70 C"),
    ],
)
def test_no_switch_under_wrong_conditions(conditions: Conditions, reason: str) -> None:
    state = staged(downloading(offered(RUNNING, release(2))), installed(2, proven=False))
    assert next_step(state, conditions, POLICY, 0) == (Do.NOTHING, reason)
    assert unmet(PARKED, POLICY) == []


PROBATION = State(
    Phase.PROBATION, "b", installed(1), installed(2, False), wanted=release(2), highest=2, boots=1, since_ns=0
)


def test_probation_that_is_missed_rolls_back() -> None:
    assert step(PROBATION, now_ns=10 * 10**9) is Do.NOTHING
    assert step(PROBATION, now_ns=10 * 10**9 + 1) is Do.ROLL_BACK
    state = rolled_back(PROBATION, "why")
    assert (state.phase, state.active, state.refused) == (Phase.ROLLED_BACK, "a", (2,))
    assert step(state) is Do.NOTHING
    assert "refused here" in next_step(state, PARKED, POLICY, 0)[1]


def test_frames_without_a_plan_roll_back_at_once() -> None:
    assert step(observed(observed(PROBATION, 1, False), 2, False)) is Do.ROLL_BACK


def test_boots_without_a_commit_roll_back() -> None:
    assert step(State(**{**_fields(PROBATION), "boots": 2})) is Do.NOTHING
    assert step(State(**{**_fields(PROBATION), "boots": 3})) is Do.ROLL_BACK


def test_a_parked_vehicle_does_not_miss_its_probation() -> None:
    waiting = State(**{**_fields(PROBATION), "since_ns": -1})
    assert step(waiting, now_ns=10**18) is Do.NOTHING


def test_without_a_proven_slot_there_is_nothing_to_roll_back_to() -> None:
    first = State(Phase.PROBATION, "a", installed(1, False), wanted=release(1), highest=1)
    assert rolled_back(first, "why").active is None


def test_the_fleet_goes_back_to_the_other_slot_without_a_download() -> None:
    state = offered(committed(PROBATION), release(1))
    assert step(state) is Do.RETURN
    assert step(state, Conditions(parked=False)) is Do.NOTHING


def test_an_older_release_never_comes_in_from_outside() -> None:
    state = State(Phase.COMMITTED, "a", installed(5), wanted=release(4), highest=5)
    assert next_step(state, PARKED, POLICY, 0) == (Do.NOTHING, "release 4 is below 5")


def test_what_is_staged_and_no_longer_wanted_is_discarded() -> None:
    ready = staged(downloading(offered(RUNNING, release(2))), installed(2, proven=False))
    assert step(offered(ready, release(1))) is Do.DISCARD
    assert step(offered(ready, release(3))) is Do.DISCARD


def test_no_download_while_on_probation() -> None:
    assert step(offered(PROBATION, release(3))) is Do.NOTHING


def test_a_new_offer_ends_the_memory_of_the_last_outcome() -> None:
    state = rolled_back(PROBATION, "why")
    assert offered(state, release(2)).phase is Phase.ROLLED_BACK
    assert offered(state, release(3)).phase is Phase.IDLE


def _fields(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__struct_fields__}
