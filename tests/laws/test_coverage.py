"""Coverage: exposure is counted once whatever the order, debt ranks by exposure and risk, campaigns follow from
it, and what people decided about campaigns stands."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats

from edge.agent.expressions import check_expression
from streams.contracts.campaigns import FINAL, Campaign, CampaignState, moved, obeyed
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, decode, encode
from streams.contracts.drive import Exposure, Telemetry
from streams.coverage import DAY_NS, HOUR_NS, OTHER, Coverage, CoverageConfig, CoverageState
from streams.debt import Driven, debts, gamma_quantile
from tests.laws.stage_laws import (
    check_any_batches,
    check_deterministic,
    check_dump_and_load,
    check_replay,
    run,
    shuffled,
)
from tests.samples import T0, campaign, in_batches, telemetry

DAY, NIGHT, FOG = "right/day/clear/urban", "left/night/clear/urban", "left/day/fog/urban"
SOON = CoverageConfig(look_ns=2 * SECOND_NS, least_km=1.0)


def report(number: int, cell: str = DAY, km: float = 1.0, disengagements: int = 0, **changes: Any) -> Telemetry:
    causes = {"lateral": disengagements} if disengagements else {}
    return telemetry(number, exposures=[Exposure(cell, km * 900, km * 90, km * 100, km * 10, causes)], **changes)


def reports() -> st.SearchStrategy[Telemetry]:
    return st.builds(
        lambda n, car, cell, m, k, version: telemetry(
            n,
            f"car-{car}",
            model_version=version,
            exposures=[Exposure(cell, m, m / 10, m / 3, m / 30, {"stuck": k} if k else {})],
        ),
        st.integers(0, 30),
        st.integers(0, 2),
        st.sampled_from([DAY, NIGHT, FOG]),
        st.floats(0, 5000),
        st.integers(0, 3),
        st.sampled_from(["m1", "m2"]),
    )


def told() -> st.SearchStrategy[Campaign]:
    return st.builds(
        lambda name, state, revision: campaign(name, state, revision=revision, start_ns=T0 + 3 * SECOND_NS),
        st.sampled_from(["a", "b"]),
        st.sampled_from(list(CampaignState)),
        st.integers(0, 3),
    )


streams = st.lists(st.one_of(reports(), told()), max_size=25)
cuts = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@given(streams, cuts)
@settings(max_examples=40)
def test_the_laws_of_every_stage(messages: list[Message], sizes: list[int]) -> None:
    batches = in_batches(messages, sizes)
    check_deterministic(Coverage(SOON), Coverage(SOON), batches, T0)
    check_dump_and_load(Coverage(SOON), batches, T0)
    check_replay(Coverage(SOON), batches, T0)
    check_any_batches(Coverage(SOON), messages, sizes, T0)


@given(st.lists(reports(), max_size=25), st.integers(0, 9), cuts)
@settings(max_examples=60)
def test_the_table_does_not_depend_on_order_batches_or_repetition(
    messages: list[Telemetry], salt: int, sizes: list[int]
) -> None:
    stage = Coverage()
    unique = {m.event_id: m for m in reversed(messages)}
    assume(len(unique) == len(messages) or all(m == unique[m.event_id] for m in messages))
    one, _, _ = run(stage, [messages], T0)
    other, _, _ = run(stage, in_batches(shuffled([*messages, *messages], salt), sizes), T0)
    assert (one.table, one.heard_ns, one.from_ns, one.to_ns) == (
        other.table,
        other.heard_ns,
        other.from_ns,
        other.to_ns,
    )


@given(st.lists(told(), max_size=8, unique=True))
@settings(max_examples=60)
def test_the_last_record_of_each_campaign_is_what_stands(messages: list[Campaign]) -> None:
    """The topic is compacted: who comes later reads nothing else, so a kill must be in it."""
    stage = Coverage(SOON)
    state, last = stage.initial(), dict[str, Campaign]()
    for number, message in enumerate(messages):
        last[message.campaign_id] = message
        outcome = stage.step(state, [message], T0 + number * SECOND_NS)
        state = outcome.state
        for emit in outcome.emits:
            assert isinstance(emit.message, Campaign)
            last[emit.message.campaign_id] = emit.message
    for name, stands in state.campaigns.items():
        assert last[name] == stands
        killed = [m for m in messages if m.campaign_id == name and m.state is CampaignState.KILLED]
        assert not killed or stands.state in FINAL
    echo = stage.step(state, [*last.values(), *messages], T0 + len(messages) * SECOND_NS)
    assert {e.message.state for e in echo.emits if isinstance(e.message, Campaign)} <= {CampaignState.ACTIVE}


class Bench:
    """A stage, its state, and a clock."""

    def __init__(self, config: CoverageConfig | None = None) -> None:
        self.stage = Coverage(config)
        self.state: CoverageState = self.stage.initial()
        self.now_ns = T0
        self.send()

    def send(self, *messages: Message, wait_ns: int = 0) -> list[Campaign]:
        self.now_ns += wait_ns
        outcome = self.stage.step(self.state, messages, self.now_ns)
        self.state = outcome.state
        self.refused = outcome.refused
        return [e.message for e in outcome.emits if isinstance(e.message, Campaign)]


def fleet(night: int = 9, fog: int = 0) -> list[Telemetry]:
    """100 km by day with 10 disengagements, 20 km at night, 2 km in fog."""
    by_day = [report(i, DAY, 1.0, int(i < 10)) for i in range(100)]
    by_night = [report(100 + i, NIGHT, 1.0, int(i < night)) for i in range(20)]
    return [*by_day, *by_night, *(report(120 + i, FOG, 1.0, int(i < fog)) for i in range(2))]


def test_exposure_is_kept_by_cell_and_model() -> None:
    bench = Bench()
    bench.send(report(1), report(2, km=2.0, disengagements=1), report(3, NIGHT, model_version="m2"))
    tally = bench.state.table[DAY]["m1"]
    assert (tally.engaged_mm, tally.manual_mm, tally.disengagements) == (2_700_000, 300_000, 1)
    assert (tally.engaged_ms, tally.manual_ms) == (270_000, 30_000)
    assert set(bench.state.table[NIGHT]) == {"m2"}


def test_debt_is_exposure_times_upper_risk() -> None:
    driven = {DAY: Driven(100, 90, 10), NIGHT: Driven(20, 18, 9), FOG: Driven(2, 1.8, 0)}
    found = {d.cell: d for d in debts(driven, 50.0, 0.95)}
    fleet_rate = 19.5 / 109.8
    for cell, d in driven.items():
        posterior = stats.gamma(fleet_rate * 50 + d.disengagements, scale=1 / (50 + d.engaged_km))
        assert found[cell].rate_per_km == pytest.approx(posterior.mean())
        assert found[cell].upper_per_km == pytest.approx(posterior.ppf(0.95), rel=0.01)
        assert found[cell].debt == pytest.approx(d.km / 122 * found[cell].upper_per_km)
    assert sum(d.part for d in found.values()) == pytest.approx(1)
    # Nothing happened in fog, yet so little was driven that it may be worse than by day.
    assert found[FOG].upper_per_km > found[DAY].upper_per_km


@given(st.floats(0.5, 500), st.floats(0.1, 1000), st.floats(0.8, 0.99))
def test_the_quantile_is_close_to_the_exact_one(shape: float, rate: float, quantile: float) -> None:
    assert gamma_quantile(shape, rate, quantile) == pytest.approx(
        stats.gamma.ppf(quantile, shape) / rate, rel=0.03
    )


@given(st.floats(0.1, 500), st.integers(1, 50))
def test_the_same_rate_on_more_evidence_is_less_uncertain(km: float, count: int) -> None:
    def margin(times: int) -> float:
        found = debts({"c": Driven(km, km * times, count * times), "rest": Driven(1e6, 1e6, 10**5)}, 50.0, 0.95)
        cell = next(d for d in found if d.cell == "c")
        return cell.upper_per_km / cell.rate_per_km

    assert margin(100) < margin(1)


def test_nothing_driven_owes_nothing_and_asks_for_nothing() -> None:
    bench = Bench()
    assert bench.stage.debts(bench.state) == []
    assert bench.send(wait_ns=DAY_NS) == []


def test_debt_writes_a_campaign_that_vehicles_accept_and_policy_approves() -> None:
    bench = Bench()
    assert bench.send(*fleet()) == []
    written = bench.send(wait_ns=HOUR_NS)
    newest = {c.campaign_id: c for c in written}
    assert [c.cell for c in newest.values()] == [DAY, NIGHT]
    for one in written:
        check_expression(one.expression)
        assert decode(*encode(one), now_ns=bench.now_ns) == one
    for one in newest.values():
        assert one.state is CampaignState.ACTIVE and one.approved_by.startswith("policy: at most 24000000 bytes")
        assert obeyed(one, bench.now_ns) and not obeyed(one, one.expires_ns)
        assert f"cell == '{one.cell}'" == one.expression and "coverage debt" in one.reason
    assert bench.send(wait_ns=HOUR_NS) == []


def test_the_sampling_probability_is_what_brings_the_clips_that_are_wanted() -> None:
    busy = CoverageConfig(clips=10, auto_fleet_bytes=10**9)
    bench = Bench(busy)
    bench.send(*fleet())
    by_cell = {c.cell: c.sampling_probability for c in bench.send(wait_ns=HOUR_NS)}
    # 100 km by day took 10,000 s within an hour: 168 such hours in a week, an occurrence each 30 s.
    assert by_cell[DAY] == pytest.approx(10 / (10_000 * 168 / 30), abs=1e-4)
    assert by_cell[NIGHT] == pytest.approx(10 / (2_000 * 168 / 30), abs=1e-4)


@pytest.mark.parametrize("changes", [{"auto_vehicle_bytes": 0}, {"auto_fleet_bytes": 1}], ids=str)
def test_what_is_larger_than_policy_allows_waits_for_a_person(changes: dict[str, int]) -> None:
    bench = Bench(CoverageConfig(**changes))
    bench.send(*fleet())
    (first, *_) = bench.send(wait_ns=HOUR_NS)
    assert first.state is CampaignState.WAITING and not obeyed(first, bench.now_ns)
    approved = moved(first, CampaignState.APPROVED, bench.now_ns, "ada")
    (active,) = bench.send(approved)
    assert active.state is CampaignState.ACTIVE and active.approved_by == "ada"


def test_campaigns_begin_and_expire_by_themselves_and_the_cell_rests() -> None:
    bench = Bench(CoverageConfig(lifetime_ns=DAY_NS, open_campaigns=1))
    bench.send(*fleet())
    bench.send(wait_ns=HOUR_NS)
    ended = bench.send(wait_ns=DAY_NS)
    assert [(c.cell, c.state) for c in ended[:1]] == [(DAY, CampaignState.EXPIRED)]
    assert {c.cell for c in ended[1:]} == {NIGHT}
    later = bench.send(wait_ns=DAY_NS)
    assert {c.cell for c in later if c.state is CampaignState.ACTIVE} == {DAY}


def test_a_kill_stands_against_what_comes_at_the_same_time() -> None:
    bench = Bench()
    waiting = campaign("x", CampaignState.WAITING, revision=0)
    bench.send(waiting)
    killed = moved(waiting, CampaignState.KILLED, bench.now_ns)
    approved = moved(waiting, CampaignState.APPROVED, bench.now_ns, "bob")
    for order in itertools.permutations([killed, approved]):
        other = Bench()
        other.send(waiting)
        said = [c for message in order for c in other.send(message)]
        assert other.state.campaigns["x"].state is CampaignState.KILLED
        assert said[-1].state is CampaignState.KILLED and said[-1].revision > approved.revision


def test_a_person_cannot_change_what_was_approved() -> None:
    bench = Bench()
    running = campaign("x")
    bench.send(running)
    (again,) = bench.send(replace(running, revision=5, expression="true"))
    assert (again.expression, again.revision) == (running.expression, 6)
    assert bench.send(replace(running, revision=5, expression="true")) == []


def test_what_is_no_campaign_is_refused() -> None:
    bench = Bench(CoverageConfig(max_campaigns=1))
    bench.send(campaign("x", expires_ns=T0))
    assert bench.refused[0].reason == "no-campaign" and "expires" in bench.refused[0].detail
    bench.send(campaign("y"))
    bench.send(campaign("z"))
    assert "1 campaigns stand" in bench.refused[0].detail


def test_the_table_is_bounded_and_loses_no_exposure() -> None:
    bench = Bench(CoverageConfig(max_cells=2, max_versions=2))
    for i in range(6):
        bench.send(report(i, f"cell-{i}", model_version=f"m{i}"))
    assert set(bench.state.table) == {"cell-0", "cell-1", OTHER}
    assert set(bench.state.heard_ns) == {"m0", "m1", OTHER}
    total = sum(t.engaged_mm for cell in bench.state.table.values() for t in cell.values())
    assert total == 6 * 900_000


def test_a_cell_that_a_vehicle_made_up_never_becomes_an_expression() -> None:
    bench = Bench(CoverageConfig(open_campaigns=9, least_part=0.0))
    bench.send(*fleet(), report(200, "x' || true || '", 50.0, 40))
    assert {c.cell for c in bench.send(wait_ns=HOUR_NS)} == {DAY, NIGHT, FOG}


def test_the_model_that_drives_now_is_judged() -> None:
    bench = Bench()
    bench.send(*fleet())
    late = [report(300 + i, NIGHT, 1.0, model_version="m2", time_ns=T0 + 2 * DAY_NS) for i in range(12)]
    bench.send(*late, wait_ns=2 * DAY_NS)
    assert bench.stage.version(bench.state) == "m2"
    night = next(d for d in bench.stage.debts(bench.state) if d.cell == NIGHT)
    assert night.driven.disengagements == 0 and night.driven.engaged_km == pytest.approx(10.8)
    assert night.share == pytest.approx(32 / 134)


def test_a_config_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="quantile"):
        CoverageConfig(quantile=1.0)
