"""`fleet services`: the parts come up, are told, and all end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleet.kafka import missing_tools, port_answers
from fleet.services import Part, Ports, Process, ServiceFailed, prometheus_home
from tests.conftest import ROOT

pytestmark = pytest.mark.services


@pytest.mark.slow
def test_the_parts_come_up_and_end_together(tmp_path: Path) -> None:
    if missing := missing_tools():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {missing}")
    ports = [f"--{name}-port=0" for name in ("kafka", "s3", "mlflow", "prometheus")]
    command = [sys.executable, "-c", "from fleet.cli import main; main()", "services", *ports]
    process = subprocess.Popen(
        [*command, "--dir", str(tmp_path / "run")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        told: list[str] = []
        while not told or "Ctrl-C" not in told[-1]:
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            told.append(line)
        urls = dict(line.split()[:2] for line in told if line.startswith(("kafka", "s3", "mlflow", "prometheus")))
        assert {"kafka", "s3", "mlflow"} <= set(urls)
        open_ports = [int(url.rpartition(":")[2]) for url in urls.values()]
        assert all(map(port_answers, open_ports))
        environment = tmp_path / "run" / "environment"
        assert environment.stat().st_mode & 0o077 == 0, "keys are for their owner"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    ends = time.monotonic() + 10
    while any(map(port_answers, open_ports)) and time.monotonic() < ends:
        time.sleep(0.2)
    assert not any(map(port_answers, open_ports))


def test_a_part_that_dies_is_named_with_its_log(tmp_path: Path) -> None:
    script = "print('no disk left', flush=True); raise SystemExit(3)"
    part = Part("store", "http://x", (sys.executable, "-c", script), lambda: False)
    process = Process(part, tmp_path)
    with pytest.raises(ServiceFailed, match=r"store ended by itself.*no disk left"):
        process.wait_ready(timeout_s=60)
    process.stop()


def test_a_part_that_does_not_come_up_is_ended_with_its_workers(tmp_path: Path) -> None:
    script = (
        "import subprocess, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); time.sleep(600)"
    )
    process = Process(Part("slow", "http://x", (sys.executable, "-c", script), lambda: False), tmp_path)
    with pytest.raises(ServiceFailed, match="slow did not come up"):
        process.wait_ready(timeout_s=2)
    process.stop()
    group = process._process.pid
    left = [p for p in psutil.process_iter() if os.getpgid(p.pid) == group and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def test_prometheus_gets_the_projects_configuration(tmp_path: Path) -> None:
    home = prometheus_home(tmp_path, ["127.0.0.1:1"])
    assert (home / "prometheus.yml").read_text() == (ROOT / "monitoring" / "prometheus.yml").read_text()
    assert (home / "rules" / "rates.yml").exists()
    assert "127.0.0.1:1" in (home / "targets.json").read_text()
    assert Ports().kafka == 9092
