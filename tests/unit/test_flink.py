"""What of the Flink engine needs no Flink: a job's plan, frames, lanes, what is saved of them, configuration."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.flink import JVM, FlinkEnvironment, FlinkUnavailable
from fleet.run_flink import job_config
from fleet.streams import BadOption, RunOptions
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, encode
from streams.dedup import Dedup, DedupConfig
from streams.engines.flink.config import FlinkConfig, NotRunnable, newest_checkpoint, object_store, plan
from streams.engines.flink.frames import Frame, read_batch, read_told, write_outgoing
from streams.engines.flink.handed import Handed
from streams.engines.flink.lane import FromLane, Lane
from streams.engines.round import Counts, Outgoing, Round
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.selection import Selection
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.topics import BY_NAME
from tests.samples import T0, embedding_of, event, in_batches


def options(**changes: object) -> RunOptions:
    fields: dict[str, object] = {
        "engine": "flink", "stages": ("dedup", "tagging", "novelty"), "kafka": "127.0.0.1:9092", "prefix": "p.",
        "group": "g", "instance": "", "store": "runs/store", "settings": {}, "idle_s": None,
    }  # fmt: skip
    return RunOptions(**fields | changes)  # type: ignore[arg-type]


def frame(message: Message, offset: int = 0, partition: int = 3) -> Frame:
    headers, value = encode(message, "test")
    raw = msgspec.Raw(msgspec.msgpack.encode(headers))
    return Frame("fleet.events", partition, offset, T0 // 1_000_000, b"car-1", raw, value)


def stages() -> list[AnyStage]:
    novelty = NoveltyStage(NoveltyConfig(block=4, mature=8, prototypes=8, reservoir=16))
    return [Dedup(DedupConfig(60 * SECOND_NS, 64)), Tagging(), novelty]


def lane() -> Lane:
    made = stages()
    return Lane(made, {s.name: Counts() for s in made})


def nowhere(_data: bytes, _sha256: str) -> None:
    pytest.fail("these stages store nothing")


def test_stages_that_edges_join_run_in_one_operator() -> None:
    groups = plan(("novelty", "dedup", "tagging", "selection", "archive"))
    assert [(g.name, g.scope) for g in groups] == [
        ("dedup-tagging-novelty", "partition"),
        ("selection", "fleet"),
        ("archive", "fleet"),
    ]
    assert groups[0].topics == ("fleet.events",)
    assert [(g.topics, g.after) for g in groups[1:]] == [
        ((), "dedup-tagging-novelty"),
        (("fleet.clip-requests", "fleet.clips"), ""),
    ]
    assert plan(["selection"])[0].topics == ("fleet.scenarios",), "without its writer, from the topic"
    assert [g.lanes for g in groups] == [BY_NAME["fleet.events"].partitions, 1, 1]


@pytest.mark.parametrize(
    ("names", "why"),
    [(("novelty",), "events.tagged"), (("dedup", "nonsense"), "nonsense"), ((), "streams/topology.py")],
)
def test_stages_that_cannot_run_alone_are_refused(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(NotRunnable, match=why):
        plan(names)


def test_the_newest_whole_checkpoint() -> None:
    found = [
        ("file:/c/job-a/chk-9/_metadata", 500),
        ("file:/c/job-b/chk-2/_metadata", 900),
        ("file:/c/job-b/chk-3/part-of-one", 999),
        ("file:/c/job-b/shared/_metadata", 1000),
    ]
    assert newest_checkpoint(found) == "file:/c/job-b/chk-2"
    assert newest_checkpoint([]) is None


def test_an_object_store_is_found_by_what_fsspec_goes_by() -> None:
    assert object_store({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "stays where it is"}) == {}
    found = object_store({"AWS_DEFAULT_REGION": "eu-west-2", "AWS_ENDPOINT_URL": "http://s3:7070"})
    assert (found["s3.region"], found["s3.endpoint"]) == ("eu-west-2", "http://s3:7070")
    assert found["s3.path-style-access"] == "true"
    own = {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": "http://other"}
    assert (
        object_store({"AWS_DEFAULT_REGION": "x", "AWS_ENDPOINT_URL": "y"} | own)["s3.endpoint"] == "http://other"
    )


def test_a_batch_as_the_jvm_writes_it() -> None:
    """array(2), mark, array32 of frames: java/LaneBatches.java."""
    body = msgspec.msgpack.encode(frame(event(1), 17))
    batch = read_batch(b"\x92\xc2\xdd\x00\x00\x00\x02" + body + body)
    assert not batch.mark
    assert [f.offset for f in batch.frames] == [17, 17]
    record = batch.frames[0].record()
    assert (record.headers, record.value) == encode(event(1), "test")
    assert record.time_ns == T0
    assert read_batch(b"\x92\xc3\x90").mark


def test_what_is_published_is_an_array_of_records() -> None:
    out: list[Outgoing] = [("fleet.scenarios", b"cell", (("ce_type", b"x"),), b"{}")]
    data = write_outgoing(out, T0 + 999_999, b"token")
    found = msgspec.msgpack.decode(data)
    assert found == [False, [["fleet.scenarios", b"cell", [["ce_type", b"x"]], b"{}", T0 // 1_000_000]], b"token"]


def test_what_lanes_tell_is_taken_alike_at_hand_and_from_bytes() -> None:
    lanes, store = lane(), Handed()
    done = lanes.step([frame(event(n, embedding=embedding_of([n, 5, 7]))) for n in range(20)], T0, nowhere)
    told = read_told(write_outgoing(done.outgoing(), done.now_ns, store.give(done)))
    topics = {"fleet.scenarios"}
    at_hand, read = (Lane([Selection()], {"selection": Counts()}) for _ in range(2))
    found = store.take(told.token)
    assert found is done
    at_hand.step((), T0, nowhere, FromLane(found, topics))
    read.step(told.frames(topics), T0, nowhere)
    assert read.states["selection"].held
    assert at_hand.save() == read.save()
    assert told.frames({"fleet.archive"}) == []
    assert read_told(b"\x92\xc3\x90").mark


def test_a_round_is_handed_over_once_and_not_kept_for_ever() -> None:
    store = Handed(most=2)
    tokens = [store.give(Round(n)) for n in range(4)]
    assert [store.take(t) is not None for t in (*tokens, tokens[-1])] == [False, False, True, True, False]
    token = store.give(Round(5))
    assert Handed().give(Round(6)) != token
    store.clear()
    assert store.take(token) is None


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60), max_size=80), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_a_restored_lane_goes_on_as_if_nothing_had_been(numbers: list[int], sizes: list[int]) -> None:
    """Saved after each batch, as base or change; restored after each; says the same to the byte."""
    undisturbed, base, changes = lane(), b"", list[bytes]()
    messages: list[Message] = [event(n, embedding=embedding_of([n + 1, 5, 7 - n])) for n in numbers]
    for number, batch in enumerate(in_batches(messages, sizes)):
        restored = lane()
        restored.restore(base or None, changes)
        frames, now_ns = [frame(m) for m in batch], T0 + number * SECOND_NS
        told = undisturbed.step(frames, now_ns, nowhere).outgoing()
        assert restored.step(frames, now_ns, nowhere).outgoing() == told
        saved = restored.save()
        assert saved is not None
        if saved.base is not None:
            base, changes = saved.base, []
        if saved.change is not None:
            changes.append(saved.change)
        assert restored.save() is None, "nothing changed since"


def test_changes_are_folded_into_a_new_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded: about twice the state."""
    monkeypatch.setattr("streams.engines.flink.lane.COMPACT_BYTES", 0)
    one = lane()
    kinds = []
    for n in range(40):
        one.step([frame(event(n, embedding=embedding_of([n + 1, 2])))], T0, nowhere)
        saved = one.save()
        assert saved is not None
        kinds.append(saved.base is not None)
    assert kinds[0]
    assert 1 < sum(kinds) < 20


def test_a_lane_takes_poison_for_a_dead_letter_and_time_never_goes_back() -> None:
    one = lane()
    one.step([frame(event(1))], T0 + SECOND_NS, nowhere)
    junk = Frame("fleet.events", 3, 8, 0, b"car-1", msgspec.Raw(b"\x91\x92\xa1a\xc4\x01b"), b"junk")
    ((topic, key, _, value),) = one.step([junk], T0, nowhere).outgoing()
    assert (topic, key) == ("fleet.dead-letter", b"fleet.events")
    assert msgspec.json.decode(value)["headers"] == [["a", "Yg=="]]
    assert one.now_ns == T0 + SECOND_NS


def test_the_command_lines_words_become_the_jobs_configuration(tmp_path: Path) -> None:
    words = {"checkpoint_ms": "500", "execution": "process", "security.protocol": "SSL", "bounded": "true"}
    config = job_config(options(settings=words, checkpoints=str(tmp_path), parallelism=2), FlinkEnvironment())
    assert (config.checkpoint_ms, config.execution, config.bounded, config.parallelism) == (
        500,
        "process",
        True,
        2,
    )
    assert config.options == {"security.protocol": "SSL"}
    assert config.checkpoints == tmp_path.as_uri()
    assert msgspec.json.decode(msgspec.json.encode(config), type=FlinkConfig) == config


@pytest.mark.parametrize(
    "changes", [{"settings": {"checkpoint_ms": "soon"}}, {"settings": {"execution": "magic"}}, {"idle_s": 3.0}]
)
def test_bad_words_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(BadOption, match=r"--set|--idle"):
        job_config(options(**changes), FlinkEnvironment())


def test_a_missing_environment_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FlinkUnavailable, match="make flink"):
        FlinkEnvironment(tmp_path / "none", tmp_path).check()


def test_who_sets_options_of_the_jvm_has_those_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two collectors would keep it from starting."""
    (tmp_path / "lib/python3.11/site-packages/pyflink").mkdir(parents=True)
    environment = FlinkEnvironment(tmp_path, tmp_path)
    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    assert environment.variables(tmp_path, 512)["JAVA_TOOL_OPTIONS"] == f"-Xms512m -Xmx512m {JVM}"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseParallelGC")
    assert environment.variables(tmp_path, 512)["JAVA_TOOL_OPTIONS"] == "-Xms512m -Xmx512m -XX:+UseParallelGC"
