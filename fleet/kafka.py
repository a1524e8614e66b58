"""A native Apache Kafka: from Maven artifacts, one KRaft node on 127.0.0.1, for tests and trials."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

POM = Path(__file__).with_name("kafka.pom.xml")
CLUSTER_ID = "RmxlZXR3aGVlbEthZmthMQ"
"""22 characters of base64: a node's data belong to one cluster."""


class KafkaUnavailable(OSError):
    """Java, Maven, an artifact or a port is missing: the message says which and what to do."""


class NativeKafka:
    """A broker as a child process. `prepare` once, `start`, use `bootstrap`, `stop`; or as a context manager."""

    def __init__(self, directory: Path = Path("build/kafka"), port: int = 0, heap_mb: int = 512) -> None:
        """Libraries lie in directory/libs and are kept; each port has its own data and log beside them. Port 0
        takes a free one."""
        self.directory = directory.resolve()
        self.port = port or free_port()
        self._controller_port = free_port()
        self._heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """Data, configuration and log of this broker."""
        return self.directory / f"node-{self.port}"

    def prepare(self) -> NativeKafka:
        """Get the libraries, once, however many ask side by side: some 50 MB. Raises KafkaUnavailable."""
        require("java", "Java 17 or later runs Kafka: install a JRE (Debian: openjdk-17-jre-headless)")
        done = self.directory / "libs" / f".{stamp()}"
        if done.exists():
            return self
        require("mvn", "Maven brings Kafka's artifacts: install it (Debian: maven)")
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "libs.lock").open("w") as lock:
            # Who comes second must neither fetch again nor take away what the first already runs from.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                self._fetch(done.name)
        return self

    def _fetch(self, mark: str) -> None:
        part = self.directory / f"libs.{os.getpid()}"
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={part}"]
        shutil.rmtree(part, ignore_errors=True)
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if run.returncode or not any(part.glob("kafka_*.jar")):
            shutil.rmtree(part, ignore_errors=True)
            raise KafkaUnavailable(f"Maven could not bring Kafka: {(run.stdout + run.stderr)[-800:].strip()}")
        (part / mark).touch()
        shutil.rmtree(self.directory / "libs", ignore_errors=True)
        part.rename(self.directory / "libs")

    def start(self, timeout_s: float = 180.0) -> NativeKafka:
        """Format the data folder where it is new, start, wait until the port answers. Raises KafkaUnavailable."""
        if port_answers(self.port):
            raise KafkaUnavailable(f"port {self.port} is taken: name another, or end what listens there")
        self.home.mkdir(parents=True, exist_ok=True)
        config = self.home / "server.properties"
        config.write_text(self._properties())
        if not (self.home / "data" / "meta.properties").exists():
            self._format(config)
        with (self.home / "kafka.log").open("ab") as log:
            command = [*self._java(), "kafka.Kafka", str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._await_port(timeout_s)
        return self

    def stop(self, timeout_s: float = 20.0) -> None:
        """End this broker, gently and then by force. Its data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self) -> int:
        """Until it ends; its exit status."""
        return 0 if self._process is None else self._process.wait()

    def remove(self) -> None:
        """End it at once, and remove its data and log."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> NativeKafka:
        return self.prepare().start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _java(self) -> list[str]:
        heap = f"-Xmx{self._heap_mb}m"
        return [
            "java",
            heap,
            "-XX:+UseSerialGC",
            "-Dorg.apache.logging.log4j.level=INFO",
            "-cp",
            f"{self.directory / 'libs'}/*",
        ]

    def _format(self, config: Path) -> None:
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if run.returncode:
            raise KafkaUnavailable(
                f"Kafka could not format {self.home}: {(run.stdout + run.stderr)[-800:].strip()}"
            )

    def _await_port(self, timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        while not port_answers(self.port):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > ends:
                self.stop()
                tail = (self.home / "kafka.log").read_text(errors="replace")[-800:]
                raise KafkaUnavailable(f"Kafka did not come up on {self.bootstrap}; its log ends: {tail.strip()}")
            time.sleep(0.1)

    def _properties(self) -> str:
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}",
                f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                f"log.dirs={self.home / 'data'}",
                # One node: everything has one replica; topics come from the table alone.
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=8",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "transaction.state.log.num.partitions=8",
                "share.coordinator.state.topic.replication.factor=1",
                "share.coordinator.state.topic.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "auto.create.topics.enable=false",
                "",
            ]
        )


def run_kafka(port: int, directory: Path) -> None:
    """`fleet kafka`: a broker until it is interrupted. Raises KafkaUnavailable."""
    broker = NativeKafka(directory, port).prepare().start()
    sys.stdout.write(f"Kafka answers at {broker.bootstrap}; data and log in {broker.home}; Ctrl-C ends it\n")
    sys.stdout.flush()
    # A service manager's or a script's TERM must not leave the broker behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if broker.wait():
            raise KafkaUnavailable(f"Kafka ended by itself; see {broker.home / 'kafka.log'}")
    except KeyboardInterrupt:
        broker.stop()


def missing_tools() -> list[str]:
    """Programs that a native Kafka needs and that are not here."""
    return [name for name in ("java", "mvn") if shutil.which(name) is None]


def require(program: str, advice: str) -> None:
    """Raises KafkaUnavailable with the advice where the program is not on the path."""
    if shutil.which(program) is None:
        raise KafkaUnavailable(advice)


def stamp() -> str:
    """Names the artifacts that the pom asks for."""
    return f"pom-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}"


_PORTS = range(15_000, 32_768)
"""Below those that systems give to outgoing connections: one of them could take a port before its server does."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now, taken by chance."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def port_answers(port: int) -> bool:
    """Whether something listens on 127.0.0.1."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0
