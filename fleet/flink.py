"""The Flink environment: its jars, and a Python of its own, because apache-flink pins what others need newer. Jobs
are processes of it; nothing here imports Flink."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

import streams.engines.flink as sources
from streams.engines.flink.config import FlinkConfig

SOURCES = Path(str(sources.__file__)).parent
ROOT = SOURCES.parents[2]
S3 = "flink-s3-fs-native"
JVM = "-XX:+UseSerialGC -XX:NewRatio=1 -XX:TieredStopAtLevel=1"
"""Beside the interpreter, which takes a core, the JVM only carries bytes. Its second compiler would take a fifth
of all time for the first minute and win little; collectors that run beside the work or on several threads take
cores that are not there; batches, arrays of a megabyte or two, several on their way, grow old in a smaller young
generation. Who sets JAVA_TOOL_OPTIONS has those instead."""
HINT = "run `make flink`, which makes it (some 750 MB; Java 17, Maven)"


class FlinkUnavailable(OSError):
    """The environment, Java or Maven is missing: the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class FlinkEnvironment:
    """Where it lies."""

    venv: Path = ROOT / "build" / "envs" / "flink"
    directory: Path = ROOT / "build" / "flink"
    """Jars, and the logs of what runs without a folder of its own."""

    @property
    def python(self) -> Path:
        """The interpreter that has PyFlink."""
        return self.venv / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages. Raises FlinkUnavailable."""
        found = sorted(self.venv.glob("lib/python3*/site-packages/pyflink"))
        if not found:
            raise FlinkUnavailable(f"there is no Flink environment at {self.venv}: {HINT}")
        return found[0].parent

    @property
    def jars(self) -> tuple[str, ...]:
        """What a job brings along: the connector, its libraries and our own classes."""
        return tuple(sorted(str(p) for p in (self.directory / "jars").glob("*.jar")))

    @property
    def lib(self) -> Path:
        """Flink's own jars, with the Prometheus reporter among them."""
        return self.directory / "lib"

    @property
    def plugins(self) -> Path:
        """A folder for each, with its jars: how Flink opens s3:// for checkpoints."""
        return self.directory / "plugins"

    def missing(self) -> str:
        """Why no job can be started; "" where one can."""
        if not list(self.venv.glob("lib/python3*/site-packages/pyflink")):
            return f"there is no Flink environment at {self.venv}: {HINT}"
        if not self._prepared():
            return f"the jars in {self.directory} are missing or of an older version: {HINT}"
        return "" if shutil.which("java") else "Java 17 runs Flink: install a JRE (openjdk-17-jre-headless)"

    def check(self) -> FlinkEnvironment:
        """Itself. Raises FlinkUnavailable."""
        if reason := self.missing():
            raise FlinkUnavailable(reason)
        return self

    def variables(self, logs: Path, heap_mb: int = 1024, jvm: str = JVM) -> dict[str, str]:
        """What a process of Flink finds in its environment. `jvm`: options of its virtual machine."""
        logs.mkdir(parents=True, exist_ok=True)
        heap = f"-Xms{heap_mb}m -Xmx{heap_mb}m"
        return os.environ | {
            # Without it PyFlink goes by its own folders of libraries and plugins.
            "FLINK_HOME": str(self.packages / "pyflink"),
            "FLINK_LIB_DIR": str(self.lib),
            "FLINK_PLUGINS_DIR": str(self.plugins),
            "FLINK_LOG_DIR": str(logs),
            # In thread mode the JVM hosts Python and must find our code and that of the environment.
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.packages)]),
            "PATH": os.pathsep.join([str(self.venv / "bin"), os.environ.get("PATH", "")]),
            "JAVA_TOOL_OPTIONS": f"{heap} {os.environ.get('JAVA_TOOL_OPTIONS') or jvm}",
            # NumPy's threads spin and take the cores from the JVM.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def submit(self, configs: list[FlinkConfig], logs: Path, heap_mb: int = 1024) -> subprocess.Popen[str]:
        """Start a job; it says on stdout, a JSON object a line, when it has started and when it ended. SIGTERM
        ends it. Raises FlinkUnavailable."""
        self.check()
        environment = self.variables(logs, heap_mb)
        words = [str(self.python), "-m", "streams.engines.flink_job"]
        for number, config in enumerate(configs):
            path = logs / f"job-{number}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
            words.append(str(path))
        with (logs / "job.log").open("ab") as log:
            return subprocess.Popen(
                words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )

    def prepare(self) -> FlinkEnvironment:
        """Bring the jars and compile our own, once. Raises FlinkUnavailable."""
        if self._prepared():
            return self
        for tool, what in (("mvn", "Maven (Debian: maven)"), ("javac", "a JDK 17 (openjdk-17-jdk-headless)")):
            if shutil.which(tool) is None:
                raise FlinkUnavailable(f"{tool} is not installed: the Flink jars need {what}")
        part = FlinkEnvironment(self.venv, self.directory.with_name(f"flink.{os.getpid()}"))
        try:
            part._bring()
        except FlinkUnavailable:
            shutil.rmtree(part.directory, ignore_errors=True)
            raise
        shutil.rmtree(self.directory, ignore_errors=True)
        part.directory.rename(self.directory)
        return self

    def _prepared(self) -> bool:
        """Of this version, and the environment that the links lead to is where it was."""
        made = (self.directory / f".{_stamp()}").exists()
        return made and all(jar.exists() for jar in self.lib.glob("*.jar"))

    def _bring(self) -> None:
        jars = self.directory / "jars"
        command = ["mvn", "-q", "-B", "-f", str(SOURCES / "pom.xml"), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime"]
        _run([*command, f"-DexcludeArtifactIds={S3}", f"-DoutputDirectory={jars}"])
        _run([*command, f"-DincludeArtifactIds={S3}", f"-DoutputDirectory={self.plugins / S3}"])
        self._link_lib()
        self._compile(jars)
        (self.directory / f".{_stamp()}").touch()

    def _link_lib(self) -> None:
        """Where every process of Flink finds what the distribution keeps apart."""
        flink = self.packages / "pyflink"
        self.lib.mkdir(parents=True)
        extra = [*flink.glob("opt/flink-python-*.jar"), *flink.glob("plugins/metrics-prometheus/*.jar")]
        for jar in [*flink.glob("lib/*.jar"), *extra]:
            (self.lib / jar.name).symlink_to(jar)

    def _compile(self, jars: Path) -> None:
        classes = self.directory / "classes"
        path = f"{self.lib}/*{os.pathsep}{jars}/*"
        java = sorted(map(str, SOURCES.glob("java/*.java")))
        _run(["javac", "--release", "17", "-proc:none", "-d", str(classes), "-cp", path, *java])
        with zipfile.ZipFile(jars / "fleetwheel-flink.jar", "w") as jar:
            for file in sorted(classes.rglob("*.class")):
                jar.write(file, file.relative_to(classes))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise FlinkUnavailable(f"{command[0]} failed: {(done.stdout + done.stderr)[-800:].strip()}")


def _stamp() -> str:
    """Of what the jars are made from."""
    files = [SOURCES / "pom.xml", *sorted(SOURCES.glob("java/*.java"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


if __name__ == "__main__":
    FlinkEnvironment().prepare()
