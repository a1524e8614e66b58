"""compose.yaml, the Dockerfile and what they mount agree with each other and with the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from typer.main import get_command

from fleet.cli import app
from fleet.stages import STAGES
from streams.topology import BY_STAGE

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "compose.yaml"
LOADER = ROOT / "build" / "compose" / "check"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ROLES = {n: s for n, s in SERVICES.items() if "entrypoint" not in s and str(s["image"]).startswith("fleetwheel/")}
FLEET = {n: s for n, s in ROLES.items() if s["build"]["target"] in ("stream", "learn", "vehicle")}
SECRETS = ("S3_ACCESS_KEY", "S3_SECRET_KEY", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD")


def test_it_is_valid_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not LOADER.exists(), reason="the compose tool's loader is not built (make compose)")
@pytest.mark.parametrize("profile", ["", "flink", "vehicle"])
def test_the_compose_tool_takes_it(profile: str) -> None:
    profiles = {"PATH": os.environ["PATH"], "COMPOSE_PROFILES": profile}
    given = profiles | dict.fromkeys(SECRETS, "chosen")
    done = subprocess.run([str(LOADER), str(FILE)], capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 0, done.stderr
    wanted = {
        name for name, service in SERVICES.items() if {profile, *service.get("profiles", [profile])} == {profile}
    }
    assert set(done.stdout.split()) == wanted
    refused = subprocess.run([str(LOADER), str(FILE)], capture_output=True, text=True, check=False, env=profiles)
    assert refused.returncode != 0
    assert "choose one in .env" in refused.stderr


def test_what_is_waited_for_exists_and_can_come_true() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            assert set(SERVICES[other].get("profiles", ())) <= set(service.get("profiles", ())), (name, other)
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert "restart" not in SERVICES[other], f"{other} never completes"


def test_nothing_listens_on_another_address_than_this_machine() -> None:
    ports = [p for s in SERVICES.values() for p in s.get("ports", ())]
    assert len(ports) >= 7
    assert all(p.startswith("127.0.0.1:") for p in ports)
    assert len({p.split(":")[1] for p in ports}) == len(ports)


def test_images_are_pinned_and_secrets_are_chosen_by_the_user() -> None:
    for name, service in SERVICES.items():
        if not service["image"].startswith("fleetwheel/"):
            assert re.search(r":v?\d+(\.\d+)*(-alpine)?$", service["image"]), f"{name}: {service['image']}"
    text = FILE.read_text()
    given = [pair for s in SERVICES.values() for pair in s.get("environment", {}).items()]
    hidden = {value for key, value in given if re.search("PASSWORD|SECRET|ACCESS_KEY", key)}
    assert hidden
    assert all(value.startswith(("${", "/run/secrets/")) for value in hidden), hidden
    offered = set(re.findall(r"^(\w+)=", (ROOT / "compose.env").read_text(), re.M))
    named = set(re.findall(r"\$\{(\w+):\?", text)) | {s["environment"] for s in COMPOSE["secrets"].values()}
    assert named == offered == set(SECRETS)
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_volumes_and_secrets_are_declared_and_mounted_files_exist() -> None:
    used: set[str] = set()
    for service in SERVICES.values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("$"):
                used.add(source)
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", FLEET)
def test_the_command_line_takes_every_roles_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in FLEET[name].get("environment", {}).items():
        monkeypatch.setenv(key, str(value))
    words = [str(word) for word in FLEET[name]["command"]]
    group: Any = get_command(app)
    context = group.make_context("fleet", list(words), resilient_parsing=False)
    while isinstance(group, click.Group) or hasattr(group, "commands"):
        found, group, words = group.resolve_command(context, words)
        context = group.make_context(found, list(words), parent=context)
    assert context.params.get("kafka", "kafka:19092") == "kafka:19092"
    target = FLEET[name]["build"]["target"]
    assert {"worker": "learn", "vehicle": "vehicle"}.get(group.name, "stream") == target


def test_every_stage_runs_once() -> None:
    lines = [" ".join(s["command"]) for s in FLEET.values() if s["command"][:2] == ["streams", "run"]]
    stages = [s for line in lines for s in re.findall(r"--stages[ =](\S+)", line)[0].split(",")]
    assert sorted(stages) == sorted(STAGES)
    for line in lines:
        together = re.findall(r"--stages[ =](\S+)", line)[0].split(",")
        assert len({BY_STAGE[s].scope for s in together}) == 1, "shared partitions, or one process: not both"


def stages_of_dockerfile() -> dict[str, str]:
    """Build stage -> its text."""
    parts = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
    return {re.match(r"\S+ AS (\S+)", p).group(1): p for p in parts}  # type: ignore[union-attr]


def test_every_image_is_built_from_a_hashed_lock_and_runs_as_nobody() -> None:
    stages = stages_of_dockerfile()
    assert {s["build"]["target"] for s in SERVICES.values() if "build" in s} <= set(stages)
    assert "USER fleet" in stages["base"]
    for name, text in stages.items():
        if text.startswith("base AS"):
            users = re.findall(r"^USER (\S+)", text, re.M)
            assert (users or ["fleet"])[-1] == "fleet", name
        assert text.count("pip sync") == text.count("--require-hashes requirements/")
        for lock in re.findall(r"--require-hashes (requirements/\S+)", text):
            lines = (ROOT / lock).read_text()
            assert len(re.findall(r"^[a-z].*==.* \\$", lines, re.M)) <= lines.count("--hash=sha256:")
    copied = set(re.findall(r"^COPY (\w+) \1$", stages["wheel"], re.M))
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied


@pytest.mark.parametrize(
    ("lock", "absent"),
    [
        ("vehicle", {"torch", "mlflow", "confluent-kafka", "s3fs", "panda3d"}),
        ("stream", {"torch", "mlflow", "panda3d"}),
        ("tracking", {"torch", "confluent-kafka"}),
    ],
)
def test_images_hold_no_more_than_their_role_needs(lock: str, absent: set[str]) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert not absent & set(re.findall(r"^([a-z0-9-]+)==", text, re.M))


def test_a_vehicle_and_the_streams_import_with_what_their_image_has() -> None:
    learning = ("torch", "mlflow", "panda3d", "onnx", "scipy", "faust", "pyflink")
    broker = ("confluent_kafka", "fsspec", "prometheus_client", "s3fs")
    for absent, modules in (
        ((*learning, *broker), "fleet.vehicle"),
        (
            learning,
            "fleet.exporter, fleet.registrar, fleet.run_batch, fleet.topic_tables, fleet.lag, fleet.dry_run",
        ),
    ):
        script = (
            "import sys\nclass Wall:\n    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] in {absent!r}:\n            raise ImportError(name)\n"
            f"sys.meta_path.insert(0, Wall())\nimport {modules}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_board_and_its_source_lie_where_grafana_looks() -> None:
    mounts = dict(m.split(":")[:2] for m in SERVICES["grafana"]["volumes"])
    inside = {v: k for k, v in mounts.items()}
    provider = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/dashboards/fleetwheel.yaml").read_text())
    path = provider["providers"][0]["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert any(where.startswith(path) for where in inside)
    assert inside[home] == "./monitoring/dashboards/fleet.json"


def test_prometheus_scrapes_what_is_there() -> None:
    groups = json.loads((ROOT / "monitoring/targets.compose.json").read_text())
    for target in (t for g in groups for t in g["targets"]):
        assert target.split(":")[0] in SERVICES, target
