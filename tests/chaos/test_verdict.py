"""What judges the trials of chaos can itself find fault: each kind of loss, each bar, each load."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.benchmarks import chaos, chaos_load
from fleet.benchmarks.chaos import FULL, KILLS, Broken, Carried, LeftOut, assess
from fleet.benchmarks.chaos_disk import NotPermitted, SmallDisk
from fleet.benchmarks.chaos_faults import FAULTS, kill, shift
from fleet.benchmarks.chaos_load import BadReference, Load, reference
from fleet.benchmarks.chaos_run import Counts, Fault, Outcome, Trial
from fleet.benchmarks.chaos_verdict import Verdict, Word, judge, letter_name, word
from fleet.benchmarks.chaos_workers import SETUPS, last_words
from registry.store import Store
from streams.contracts.codec import encode
from streams.contracts.ids import sha256_hex
from streams.topics import DEAD_LETTER
from streams.transport.base import Record
from streams.transport.dead_letter import encode_letter
from streams.transport.memory import partition_of
from tests.samples import T0, request, scenario

START = T0 // chaos_load.WINDOW_NS * chaos_load.WINDOW_NS
A, B = Word("t", "a", "1"), Word("t", "b", "1")


@pytest.mark.parametrize(
    ("found", "losses", "twice"),
    [
        ([A, B], {}, 0),
        ([B, A, A], {}, 1),
        ([A], {"lost": ("t: b",)}, 0),
        ([A, B, Word("u", "a", "1")], {"extra": ("u: a",)}, 0),
        ([A, Word("t", "b", "2")], {"different": ("t: b",)}, 0),
        ([A, B, Word("t", "b", "2")], {"different": ("t: b",)}, 1),
    ],
)
def test_a_decision_is_lost_extra_or_different(
    found: list[Word], losses: dict[str, tuple[str, ...]], twice: int
) -> None:
    verdict = judge(found, [A, B])
    assert {k: getattr(verdict, k) for k in ("lost", "extra", "different") if getattr(verdict, k)} == losses
    assert (verdict.losses, verdict.twice, verdict.expected) == (len(losses), twice, 2)


def test_words_are_named_by_what_they_decide() -> None:
    one, other = scenario(1), scenario(1, region="gb")
    words = [word("fleet.scenarios", encode(s)[1]) for s in (one, other)]
    assert {w.name for w in words} == {one.event.event_id} and len({w.content for w in words}) == 2
    assert word("fleet.clip-requests", encode(request("clip-7"))[1]).name == "clip-7"


def test_a_dead_letter_is_about_its_bytes_wherever_they_lay_and_whenever() -> None:
    def told(offset: int, now_ns: int, key: bytes = b"k", reason: str = "malformed") -> Word:
        record = Record("fleet.events", 1, offset, key, (("a", b"b"),), b"junk\x00")
        return word(DEAD_LETTER, encode_letter(record, reason, f"at {now_ns}", now_ns)[1])

    assert told(1, 5) == told(2, 6)
    assert told(1, 5).name == letter_name("malformed", b"junk\x00")
    assert told(1, 5, key=b"other").content != told(1, 5).content
    assert told(1, 5, reason="stale").name != told(1, 5).name


@pytest.mark.parametrize("name", FAULTS)
def test_a_load_is_decided_as_it_was_made_to_be(name: str, tmp_path: Path) -> None:
    """And is the same for the same seed."""
    fault, store = FAULTS[name], Store(tmp_path)
    stages = fault.stages or chaos_load.WHOLE
    try:
        loads = [fault.load(random.Random(seed), START, 2) for seed in (3, 3, 4)]
    except NotPermitted as error:
        pytest.skip(str(error))
    told = [reference(load, stages, store) for load in loads]
    assert told[0] == told[1] != told[2]
    assert all(len(words) > 0 for words in told[0])


def test_a_reference_that_loses_something_is_no_reference(tmp_path: Path) -> None:
    load = chaos_load.usual(random.Random(1), START, 1)
    short = Load(load.bursts, load.accepted | {"never"}, load.refused)
    with pytest.raises(BadReference, match="never"):
        reference(short, chaos_load.WHOLE, Store(tmp_path))
    with pytest.raises(BadReference, match="refused"):
        reference(Load(load.bursts, load.accepted), chaos_load.WHOLE, Store(tmp_path))


def test_duplicates_come_after_the_first_and_partitions_keep_their_order() -> None:
    load = chaos_load.again(random.Random(1), START, 3)
    values = [r.value for burst in load.bursts for r in burst.records]
    assert max(Counter(values).values()) > 2
    for lane in range(8):
        mine = [r for b in load.bursts for r in b.records if partition_of(r.key, 8) == lane]
        first = list(dict.fromkeys(_sequence(r.value) for r in mine))
        assert first == sorted(first)
    shuffled = [_sequence(r.value) for r in chaos_load.late(random.Random(1), START, 1).bursts[0].records]
    assert shuffled != sorted(shuffled)


def _sequence(value: bytes) -> int:
    found = re.search(rb'"sequence":(\d+)', value)
    assert found is not None
    return int(found[1])


def test_a_small_disk_is_full_when_it_is_filled(tmp_path: Path) -> None:
    try:
        with SmallDisk(tmp_path / "disk", 512) as disk:
            disk.fill(random.Random(1), 1)
            disk.fill(random.Random(1), 1)
            with pytest.raises(OSError, match="No space"):
                (disk.folder / "one").write_bytes(bytes(8192))
            disk.free()
            (disk.folder / "two").write_bytes(bytes(8192))
    except NotPermitted as error:
        pytest.skip(str(error))


def outcome(
    setup: str, fault: str = "kill", verdict: Verdict | None = None, kills: int = KILLS, late: int = 0
) -> Outcome:
    return Outcome(Trial(setup, FAULTS[fault], 1), verdict or Verdict(9, 9), Counts(kills, kills - late), (), 1.0)


def good() -> list[Carried]:
    found: list[Carried] = [outcome(name) for name in ("batch", "inline", "faust", "flink")]
    return [*found, *(outcome("batch", fault) for fault in FAULTS)]


def held(carried: list[Carried]) -> set[str]:
    """The bars that do not hold."""
    return {bar.id for bar in assess(carried).bars if not bar.holds}


def test_bars_hold_where_all_engines_were_killed_and_nothing_was_lost() -> None:
    assert held(good()) == set()
    assert f"{len(good())} trials" in assess(good()).table
    assert held([]) == {"kills", "engines", "faults"}


@pytest.mark.parametrize(
    ("more", "missed"),
    [
        (outcome("batch", verdict=Verdict(9, 8, lost=("x",))), {"losses"}),
        (outcome("faust", verdict=Verdict(9, 10, extra=("x",))), {"losses"}),
        (outcome("batch", verdict=Verdict(9, 9, twice=1)), {"losses"}),
        (outcome("faust", verdict=Verdict(9, 9, twice=1)), set()),
        (Broken(Trial("batch", FAULTS["kill"], 1), "it broke"), {"losses"}),
        (LeftOut(Trial("flink", FAULTS["kill"], 1), "not here"), set()),
        (replace(outcome("batch"), ended=("a with status 70: a bug",)), {"workers"}),
        (replace(outcome("batch"), ended=("a went on beside a' and had to be killed",)), {"workers"}),
        (replace(outcome("faust"), ended=("a with status 1: the disk is full",)), set()),
    ],
)
def test_a_loss_anywhere_is_a_loss(more: Carried, missed: set[str]) -> None:
    assert held([*good(), more]) == missed


def test_kills_that_came_too_late_do_not_count() -> None:
    late: list[Carried] = [outcome(name, kills=20, late=10) for name in ("batch", "inline", "faust", "flink")]
    assert "kills" in held(late)


def test_the_table_tells_trials_kills_and_losses() -> None:
    carried = [outcome("batch", verdict=Verdict(9, 8, lost=("x",)), kills=7, late=2)]
    table = assess([*carried, LeftOut(Trial("flink", FAULTS["kill"], 1), "no environment")]).table
    assert "| batch | kill -9 at a random instant | 7 (5) | 0 | 9 | 1 | 0 | 0 | 0 |" in table
    assert "**1 trials**" in table and "flink, kill: left out: no environment" in table


def test_the_full_form_covers_what_it_promises() -> None:
    assert {fault for _, fault, _ in FULL} == FAULTS.keys()
    assert {setup for setup, _, _ in FULL} == SETUPS.keys()
    assert sum(rounds for _, fault, rounds in FULL if FAULTS[fault].after in (kill, shift)) >= KILLS
    assert {SETUPS[setup].engine for setup, fault, _ in FULL if fault == "kill"} == chaos.ENGINES_KILLED


def test_contents_are_named_by_their_bytes(tmp_path: Path) -> None:
    fault: Fault = FAULTS["store full"]
    words = [
        w
        for told in reference(fault.load(random.Random(1), START, 1), fault.stages, Store(tmp_path))
        for w in told
    ]
    stored = [w for w in words if w.topic == "contents"]
    assert stored and all(w.name == w.content for w in stored) and sha256_hex(b"") not in {w.name for w in stored}


def test_last_words_are_words() -> None:
    assert last_words("it began\nit broke\n\x1b[?25h\n\n") == "it broke"
    assert last_words("\x1b[?25h\n") == last_words("") == "nothing was said"
