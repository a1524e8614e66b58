"""The Faust engine keeps the engines' contract on a real broker, also when its workers are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet.kafka import NativeKafka, free_port
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import send
from tests.conftest import ROOT
from tests.contract.engines import EngineContract, InlinePlayer, Told, check_same, words
from tests.contract.recordings import RECORDINGS
from tests.contract.transport import read_all
from tests.samples import archived, telemetry
from tests.services.players import PATIENCE_S, FaustPlayer

pytestmark = pytest.mark.services
KILLS = int(os.environ.get("FLEET_CHAOS_TRIALS", "5"))
"""Workers that are killed; the chaos suite asks for more."""
DISTURBED = ("novelty", "archive", "triggers", "rollouts")


class TestFaust(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> FaustPlayer:
        return FaustPlayer(broker, tmp_path_factory.mktemp("faust"))


def undisturbed(names: Sequence[str]) -> dict[str, Told]:
    return InlinePlayer().play({name: RECORDINGS[name]() for name in names})


def test_killed_at_random_instants_it_decides_what_it_would_have_decided(
    broker: NativeKafka, tmp_path: Path
) -> None:
    """SIGKILL while a phase is being worked on; the same worker goes on."""
    dice, killed, expected = random.Random(KILLS), 0, undisturbed(DISTURBED)
    recordings = {name: RECORDINGS[name]() for name in DISTURBED}
    phases = max(len(r.phases) for r in recordings.values())
    while killed < KILLS:
        player = FaustPlayer(broker, tmp_path / str(killed))
        chosen = set(dice.sample(range(phases), min(KILLS - killed, phases)))

        def kill(number: int, player: FaustPlayer = player, chosen: set[int] = chosen) -> None:
            if number in chosen:
                time.sleep(dice.uniform(0, 0.5))
                player.kill()
                player.start()

        told = player.play(recordings, between=kill)
        killed += len(chosen)
        for name in DISTURBED:
            check_same(told[name], expected[name])
        twice = sum(len(words(t)) - len(dict.fromkeys(words(t))) for t in told.values())
        sys.stdout.write(f"faust: {killed} kills, 0 decisions lost or changed, {twice} told twice\n")


def test_another_worker_takes_over(broker: NativeKafka, tmp_path: Path) -> None:
    """A second one joins and shares; the first is killed for good."""
    names = ("novelty", "rollouts")
    player = FaustPlayer(broker, tmp_path)
    with player.playing({name: RECORDINGS[name]() for name in names}):
        for number in range(16):
            if number == 2:
                player.start("b")
            player.feed(number)
            if number == 4:
                player.kill("a")
            player.settle()
        told = {name: player.told(name) for name in names}
    for name, expected in undisturbed(names).items():
        check_same(told[name], expected)


def test_the_command_runs_stages_and_shows_them(broker: NativeKafka, tmp_path: Path) -> None:
    """Counts and states as JSON; on SIGTERM it ends in order, and the next one tells nothing twice."""
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix="command."))
    send(transport, "fleet.archive", archived())
    send(transport, "fleet.telemetry", telemetry(hardware="sim", time_ns=time.time_ns()))
    transport.publish("fleet.telemetry", b"car-1", (), b"junk")
    transport.flush()
    letters: list[bytes] = []
    for records in (2, 0):
        port = free_port()
        process = run_faust(broker, tmp_path, port, "triggers,rollouts")
        seen = until(port, process, records)
        assert list(seen["rollouts"]["lanes"]) == list(seen["triggers"]["lanes"]) == ["0"]
        waiting = view(port, "triggers/state")["0"]["waiting"]
        assert [clip["vehicle"] for clip in waiting.values()] == ["car-1"]
        # What cannot be read is taken by no stage.
        ends = time.monotonic() + PATIENCE_S
        while not letters and time.monotonic() < ends:
            letters = [r.key for r in read_all(transport, "wait", ["fleet.dead-letter"])]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert [r.key for r in read_all(transport, "look", ["fleet.dead-letter"])] == [b"fleet.telemetry"]
    transport.close()


def taken_of(seen: dict[str, Any]) -> int:
    """Records that all stages took."""
    return sum(s["taken"] for flow in seen.values() for s in flow["stages"].values())


def run_faust(broker: NativeKafka, folder: Path, port: int, stages: str) -> subprocess.Popen[bytes]:
    words = [
        "streams", "run", "--engine", "faust", "--stages", stages, "--kafka", broker.bootstrap,
        "--prefix", "command.", "--instance", "one", "--store", str(folder / "store"),
        "--set", f"web.port={port}", "--set", "session_s=20", "--set", "period_s=0.2",
    ]  # fmt: skip
    log = (folder / "log").open("ab")
    command = [sys.executable, "-c", "from fleet.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def view(port: int, path: str = "") -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/streams/{path}", timeout=10) as answer:
        return json.load(answer)


def until(port: int, process: subprocess.Popen[bytes], records: int) -> dict[str, Any]:
    """What the web view shows once the worker has its lanes and has taken so many records."""
    ends = time.monotonic() + PATIENCE_S
    seen: dict[str, Any] = {}
    while time.monotonic() < ends:
        assert process.poll() is None, "the worker ended"
        try:
            seen = view(port)
            if all(flow["lanes"] for flow in seen.values()) and taken_of(seen) == records:
                return seen
        except OSError:
            pass  # not up yet
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE_S:.0f} s: {seen}")


def test_what_cannot_run_is_said(broker: NativeKafka, tmp_path: Path) -> None:
    process = run_faust(broker, tmp_path, free_port(), "novelty")
    assert process.wait(PATIENCE_S) == 1
    assert "novelty reads events.tagged inside the process" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
