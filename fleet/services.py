"""`fleet services`: the real parts as processes on 127.0.0.1, from the configuration that compose.yaml uses."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import typer

from fleet.kafka import NativeKafka, free_port, port_answers

MONITORING = Path(__file__).resolve().parent.parent / "monitoring"
METRICS_PORT = 9464
"""Where the demo (--metrics-port) and the exporter serve their metrics."""
BUCKET = "fleetwheel"
_TAIL = 800


class ServiceFailed(OSError):
    """A part did not come up, or ended by itself: says which, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Part:
    """A server to be run."""

    name: str
    url: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where they listen; 0 takes a free one."""

    kafka: int = 9092
    s3: int = 7070
    mlflow: int = 5000
    prometheus: int = 9090


class Process:
    """A part as a child with its own process group: servers start workers, which must end too."""

    def __init__(self, part: Part, folder: Path) -> None:
        self.part, self._log = part, folder / f"{part.name}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                part.command, stdout=log, stderr=log, env=os.environ | part.environment, start_new_session=True
            )

    def wait_ready(self, timeout_s: float = 600.0) -> None:
        """Raises ServiceFailed."""
        ends = time.monotonic() + timeout_s
        while not self.part.ready():
            self.check()
            if time.monotonic() > ends:
                raise ServiceFailed(f"{self.part.name} did not come up within {timeout_s:g} s: {self._tail()}")
            time.sleep(0.2)

    def check(self) -> None:
        """Raises ServiceFailed where it has ended."""
        if self._process.poll() is not None:
            raise ServiceFailed(f"{self.part.name} ended by itself: {self._tail()}")

    def stop(self, timeout_s: float = 15.0) -> None:
        """End it and what it started, gently and then by force."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sign)
                self._process.wait(timeout_s)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _tail(self) -> str:
        return f"{self._log} ends: {self._log.read_text(errors='replace')[-_TAIL:].strip()}"


def run_services(folder: Path, ports: Ports) -> None:
    """Start everything, say where it is, and wait; Ctrl-C or SIGTERM ends all. Raises KafkaUnavailable,
    ServiceFailed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as open_:
        try:
            started, environment = start(folder, ports, open_)
            typer.echo("\n".join(_told(started, environment, folder)))
            while True:
                for process in started:
                    process.check()
                time.sleep(1.0)
        except KeyboardInterrupt:
            typer.echo("ending all", err=True)


def start(folder: Path, ports: Ports, open_: ExitStack) -> tuple[list[Process], dict[str, str]]:
    """Kafka first, then the others side by side; they end with `open_`. The processes, and the environment that a
    client of them needs. Raises KafkaUnavailable, ServiceFailed."""
    folder = folder.resolve()
    typer.echo("starting Kafka, S3, MLflow and Prometheus; MLflow takes up to a minute ...", err=True)
    taken = [p for p in (ports.s3, ports.mlflow, ports.prometheus) if p and port_answers(p)]
    if taken:
        raise ServiceFailed(f"ports {taken} are taken: name others, or end what listens there")
    kafka = NativeKafka(port=ports.kafka).prepare()
    open_.callback(kafka.stop)
    kafka.start()
    s3, environment = s3_part(folder, ports.s3 or free_port())
    mlflow = mlflow_part(folder, ports.mlflow or free_port())
    parts = [s3, mlflow, *prometheus_part(folder, ports.prometheus or free_port(), [f"127.0.0.1:{METRICS_PORT}"])]
    started = [_launch(part, folder, open_) for part in parts]
    for process in started:
        process.wait_ready()
    environment |= {"FLEET_KAFKA": kafka.bootstrap, "MLFLOW_TRACKING_URI": mlflow.url}
    return started, environment


def s3_part(folder: Path, port: int) -> tuple[Part, dict[str, str]]:
    """versitygw where it is installed (its data stay), else moto (in memory); and what its clients need."""
    access, secret = (os.environ.get(n) or secrets.token_hex(10) for n in ("S3_ACCESS_KEY", "S3_SECRET_KEY"))
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "FLEET_STORE": f"s3://{BUCKET}/clips",
    }

    def ready() -> bool:
        return port_answers(port)

    program = shutil.which("versitygw")
    if program is None:
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        return Part(
            "s3", url, command, ready, note="moto: kept in memory; versitygw on the path would keep it"
        ), environment
    data = folder / "s3"
    data.mkdir(exist_ok=True)
    keys = {"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret, "VGW_PORT": f"127.0.0.1:{port}"}
    return Part("s3", url, (program, "posix", str(data)), ready, keys, "versitygw"), environment


def mlflow_part(folder: Path, port: int) -> Part:
    """A tracking server over SQLite; it serves the artifacts itself."""
    url = f"http://127.0.0.1:{port}"
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.sqlite'}"),
        *("--artifacts-destination", str(folder / "mlflow-artifacts")),
    )
    # Without this it starts eight processes more, for jobs of its own that nobody asks for.
    alone = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Part("mlflow", url, command, lambda: answers(f"{url}/health"), alone)


def prometheus_part(folder: Path, port: int, targets: Iterable[str]) -> list[Part]:
    """Prometheus over monitoring/prometheus.yml; [] where it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        typer.echo("prometheus is not installed (Debian: prometheus): left out", err=True)
        return []
    home, url = prometheus_home(folder / "prometheus", targets), f"http://127.0.0.1:{port}"
    command = (
        *(program, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    )
    return [Part("prometheus", url, command, lambda: answers(f"{url}/-/ready"))]


def prometheus_home(home: Path, targets: Iterable[str]) -> Path:
    """A folder with the project's configuration and rules, and these targets to scrape."""
    shutil.copytree(MONITORING / "rules", home / "rules", dirs_exist_ok=True)
    shutil.copy(MONITORING / "prometheus.yml", home)
    groups = [{"targets": list(targets), "labels": {"role": "exporter"}}]
    (home / "targets.json").write_bytes(msgspec.json.encode(groups))
    return home


def answers(url: str) -> bool:
    """Whether an HTTP server there answers well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310  ours, on 127.0.0.1
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _launch(part: Part, folder: Path, open_: ExitStack) -> Process:
    process = Process(part, folder)
    open_.callback(process.stop)
    return process


def _told(started: Iterable[Process], environment: Mapping[str, str], folder: Path) -> list[str]:
    file = folder / "environment"
    file.touch(mode=0o600)
    file.write_text("".join(f"export {name}={value}\n" for name, value in environment.items()))
    return [
        f"{'kafka':11} {environment['FLEET_KAFKA']}",
        *(f"{p.part.name:11} {p.part.url}{f'   ({p.part.note})' if p.part.note else ''}" for p in started),
        f"{'logs, data':11} {folder}",
        "",
        "In another shell, the loop over all of them:",
        f"  . {file}",
        f"  fleet demo --quick --kafka $FLEET_KAFKA --store $FLEET_STORE --mlflow $MLFLOW_TRACKING_URI "
        f"--metrics-port {METRICS_PORT}",
        "Ctrl-C ends them all.",
    ]
