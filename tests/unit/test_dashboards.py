"""The boards: their JSON is up to date, their layout and schema hold, their metrics exist; the rules compute what
monitoring/disengagements.py computes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import metrics
from monitoring.dashboards.__main__ import FOLDER, boards
from monitoring.disengagements import garwood

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "monitoring" / "rules"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def panels() -> list[dict[str, Any]]:
    return [p for text in boards().values() for p in json.loads(text)["panels"]]


def expressions() -> list[str]:
    return [t["expr"] for p in panels() for t in p.get("targets", [])]


@pytest.mark.parametrize("name", boards())
def test_the_committed_board_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text() == boards()[name], "run make dashboards"


def test_panels_lie_on_the_grid_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len(taken) == 24 * (max(y for _, y in taken) + 1), "no holes"


def test_every_panel_says_what_it_shows_and_asks_the_provisioned_source() -> None:
    source = yaml.safe_load((ROOT / "monitoring/grafana/provisioning/datasources/prometheus.yaml").read_text())
    uids = {d["uid"] for d in source["datasources"]}
    for panel in (p for p in panels() if p["type"] != "row"):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] in uids
        assert panel["targets"]


def test_every_metric_of_a_query_exists() -> None:
    recorded = {
        r["record"] for g in yaml.safe_load((RULES / "rates.yml").read_text())["groups"] for r in g["rules"]
    }
    known = recorded | {m.name + s for m in metrics.METRICS for s in ("", "_bucket", "_sum", "_count")}
    for expr in expressions():
        named = set(re.findall(r"[a-z_]*:?fleetwheel_[a-z0-9_:]+", expr))
        assert named, expr
        assert named <= known, named - known


@needs_promtool
@pytest.mark.parametrize("events", [0, 1, 2, 5, 20, 100])
def test_the_rules_compute_rates_and_limits(events: int, tmp_path: Path) -> None:
    """promtool runs the rules over a day in which a version drove 10 km with so many disengagements."""
    rate = "model_version:fleetwheel_disengagements_per_kilometer"
    low, high = garwood(events, 10.0)
    labels = '{model_version="driver-2"'
    series = [
        {"series": f'fleetwheel_exposure_meters_total{labels},mode="engaged"}}', "values": "0 10000x1500"},
        {"series": f'fleetwheel_exposure_meters_total{labels},mode="manual"}}', "values": "0 99x1500"},
    ]
    if events:
        name = f'fleetwheel_disengagements_total{labels},cause="lateral"}}'
        series.append({"series": name, "values": f"0 {events}x1500"})
    # Limits within 0.03 events of the exact ones; increase() extrapolates by a thousandth.
    expected = {"rate1d": (events / 10, 1e-3), "lower95_1d": (low, 3e-3), "upper95_1d": (high, 3e-3)}
    near = [f"count(abs({rate}:{r}{labels}}} - {v}) < {t + 2e-3 * v})" for r, (v, t) in expected.items()]
    tests = [{"expr": e, "eval_time": "1d", "exp_samples": [{"labels": "{}", "value": 1}]} for e in near]
    document = {
        "rule_files": [str(RULES / "rates.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_is_valid(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules"):
        source = ROOT / "monitoring" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copy(ROOT / "monitoring" / "targets.compose.json", tmp_path / "targets.json")
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
