"""The import rules, sizes and promises of the design, held over the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("streams", "jobs", "model", "simulation", "edge", "registry", "monitoring", "fleet")
LEAVES = {"streams.contracts", "monitoring.metrics"}

# Importer (longest prefix wins) -> our packages it may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "streams.contracts": set(),
    "monitoring.metrics": set(),
    "monitoring": LEAVES,
    "registry": LEAVES,
    "model": LEAVES,
    "simulation": LEAVES | {"model.grammar", "model.labels", "model.policy", "model.rig"},
    "streams": LEAVES | {"registry"},
    "edge": LEAVES | {"model", "registry"},
    "edge.agent": LEAVES,
    # Evaluation drives the exported network in the vehicle's own runtime; gate and report share the statistics
    # (docs/adr/0003).
    "jobs": LEAVES
    | {"registry", "model", "streams", "simulation", "monitoring.disengagements"}
    | {"edge.compile", "edge.quantize", "edge.budget", "edge.bundle", "edge.runtimes"},
    "fleet": set(PACKAGES),
}

# Third-party package -> the only places it may appear in.
CONFINED: dict[str, tuple[str, ...]] = {
    "faust": ("streams.engines",),
    "pyflink": ("streams.engines",),
    # The stream benchmark times the broker's own records; chaos feeds and listens while engines die.
    "confluent_kafka": (
        "streams.engines",
        "streams.transport",
        "fleet.benchmarks.streams_load",
        "fleet.benchmarks.chaos_wire",
    ),
    "mlflow": ("registry.models", "jobs.launchers"),
    "fsspec": ("registry.backends", "registry.store"),
    "s3fs": ("registry.backends",),
    "prometheus_client": ("monitoring.exporter",),
    "grafana_foundation_sdk": ("monitoring.dashboards",),
    "panda3d": ("simulation.panda", "simulation.cameras"),
    # The plain loop that the training benchmark runs beside ours.
    "torch": ("model", "fleet.benchmarks.training_peer"),
    "cel_expr_python": ("edge.agent.expressions",),
}


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{a.name}" for a in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rule_for(module: str) -> tuple[str, set[str]]:
    prefix = max((p for p in ALLOWED if within(module, p)), key=len)
    return prefix, ALLOWED[prefix]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_follow_the_design(path: Path) -> None:
    module = dotted(path)
    prefix, allowed = rule_for(module)
    for name in imports(path):
        if not any(within(name, p) for p in PACKAGES):
            continue
        if any(p.startswith(name + ".") for p in allowed | {prefix}):
            continue  # `from streams import contracts`: judged by the longer name
        assert within(name, prefix) or any(within(name, a) for a in allowed), f"{module} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_adapters_are_where_they_belong(path: Path) -> None:
    module = dotted(path)
    for name in imports(path):
        places = CONFINED.get(name.split(".")[0])
        assert places is None or any(within(module, p) for p in places), f"{module} imports {name}"
        assert name.split(".")[0] not in {"pickle", "cloudpickle", "dill"}, f"{module} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500, f"{path}: {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 80, f"{path}:{node.lineno} {node.name}: {lines} lines"


def test_the_agent_runs_without_the_learning_stack() -> None:
    """A vehicle installs requirements/vehicle.txt: the agent must import with nothing else there."""
    script = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'mlflow', 'faust', 'pyflink', 'panda3d', 'scipy', 'onnx',\n"
        "                                  'confluent_kafka', 'fsspec', 'prometheus_client'}:\n"
        "            raise ImportError(f'not on a vehicle: {name}')\n"
        "sys.meta_path.insert(0, Wall())\n"
        "import edge.agent.main, edge.runtimes.onnx, edge.drive_log, edge.sources.comma2k19, edge.sources.video\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
