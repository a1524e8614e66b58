"""Kafka's libraries are fetched once, also where several test workers or commands ask side by side."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.kafka import KafkaUnavailable, NativeKafka

MAVEN = """#!/bin/sh
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}" ;; esac; done
echo asked >> "$ASKED"
sleep 0.3
[ -z "$FAILS" ] || { echo "no route to the repository"; exit 1; }
mkdir -p "$out" && touch "$out/kafka_2.13-0.jar"
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven that takes a while; each time it is asked it writes a line here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"mvn": MAVEN, "java": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.delenv("FAILS", raising=False)
    return tmp_path / "asked"


def test_two_at_once_fetch_once(asked: Path, tmp_path: Path) -> None:
    home = tmp_path / "kafka"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: NativeKafka(home).prepare(), range(2)))
    assert asked.read_text().splitlines() == ["asked"]
    assert (home / "libs" / "kafka_2.13-0.jar").exists()


def test_what_is_there_is_not_fetched_again(asked: Path, tmp_path: Path) -> None:
    NativeKafka(tmp_path / "kafka").prepare()
    NativeKafka(tmp_path / "kafka").prepare()
    assert asked.read_text().splitlines() == ["asked"]


def test_maven_that_fails_is_told_and_leaves_nothing(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(KafkaUnavailable, match="no route to the repository"):
        NativeKafka(tmp_path / "kafka").prepare()
    assert not (tmp_path / "kafka" / "libs").exists()
    assert asked.exists()
