"""The whole wheel, embedded: what it must leave behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.record import JobRecord
from registry.clips import ClipIndex
from registry.lineage import Kind, Lineage, Node
from registry.models import Models
from registry.releases import Releases
from registry.store import Store
from simulation.scenarios import CONDITIONS
from tests.conftest import QuickRun, fleet

pytestmark = pytest.mark.slow


def test_the_summary_has_the_agreed_form(quick_run: QuickRun) -> None:
    summary = quick_run.summary
    assert json.loads((quick_run.out / "summary.json").read_text()) == summary
    assert summary["schema"] == 1
    assert summary["seed"] == 5
    assert [t["turn"] for t in summary["turns"]] == [0, 1]
    for turn in summary["turns"]:
        assert set(turn["by_condition"]) == set(CONDITIONS)
        assert turn["rate_low"] <= turn["rate_per_km"] <= turn["rate_high"]
        pooled = [c for n, c in turn["by_condition"].items() if n != "base"]
        assert turn["disengagements"] == sum(c["disengagements"] for c in pooled)
        assert turn["km"] == pytest.approx(sum(c["km"] for c in pooled), abs=1e-3)
    bundle = summary["bundle"]
    assert bundle["bytes"] > 10_000
    assert bundle["watts_source"] in {"measured", "modelled"}
    assert 0 < bundle["latency_ms_p50"] <= bundle["latency_ms_p99"]
    assert [r["state"] for r in summary["releases"]] == ["complete", "complete"]


def test_no_requested_clip_is_lost_and_each_is_stored_under_its_hash(quick_run: QuickRun) -> None:
    clips = quick_run.summary["clips"]
    assert clips["recorded"] > clips["requested"] > 0
    assert clips["stored"] == clips["requested"]
    assert clips["lost"] == 0
    index, store = ClipIndex(quick_run.out / "clips.sqlite"), Store(quick_run.out / "store")
    found = list(index.find())
    assert len(found) == clips["stored"]
    assert sum(len(store.get(c.sha256)) for c in found) == clips["bytes"]
    assert all(0 < c.inclusion_probability <= 1 and c.reason for c in found)


def test_one_run_one_version_one_release_for_each_job(quick_run: QuickRun) -> None:
    models = Models(f"sqlite:///{quick_run.out / 'mlflow.sqlite'}", "driver")
    releases = Releases(quick_run.out / "releases", quick_run.out / "keys").all()
    assert len(models.versions()) == len(releases) == len(quick_run.summary["jobs"]) == 2
    champion = models.champion()
    assert champion is not None
    assert champion.id == quick_run.summary["turns"][-1]["model_version"]
    assert releases[-1].card.model_version == champion.id
    for job in quick_run.summary["jobs"]:
        finished = JobRecord(Store(quick_run.out / "store"), job["fingerprint"]).finished()
        assert finished is not None
        assert finished.verdict == job["verdict"] == "pass"


def test_lineage_leads_from_a_clip_to_the_vehicles_and_back(quick_run: QuickRun) -> None:
    lineage = Lineage(quick_run.out / "lineage.sqlite")
    clip = next(iter(ClipIndex(quick_run.out / "clips.sqlite").find()))
    below = lineage.descendants(Node(Kind.CLIP, clip.clip_id))
    assert {n.kind for n in below} >= {Kind.DATASET, Kind.RUN, Kind.MODEL, Kind.BUNDLE, Kind.RELEASE, Kind.VEHICLE}
    vehicle = next(n for n in below if n.kind is Kind.VEHICLE)
    assert Node(Kind.EVENT, clip.event_id) in lineage.ancestors(vehicle)


def test_every_vehicle_runs_the_last_release(quick_run: QuickRun) -> None:
    newest = str(quick_run.summary["releases"][-1]["version"])
    states = sorted((quick_run.out / "vehicles").glob("*/slots/state.json"))
    assert len(states) == 8
    for path in states:
        state = json.loads(path.read_text())
        assert str(state[state["active"]]["version"]) == newest, path


def test_the_report_stands_alone(quick_run: QuickRun) -> None:
    page = (quick_run.out / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == min(12, quick_run.summary["clips"]["stored"])
    assert f"{quick_run.summary['turns'][0]['rate_per_km']:.1f}" in page


def test_what_was_said_can_be_replayed(quick_run: QuickRun) -> None:
    recording = str(quick_run.out / "run.jsonl")
    replayed = fleet("replay", "--input", recording, "--when", "takeover", "--json")
    assert replayed.returncode == 0, replayed.stderr
    told = json.loads(replayed.stdout)
    assert told["recording"]["events"] >= quick_run.summary["clips"]["recorded"] > 0
    dry = fleet("streams", "dry-run", "novelty", "--input", recording, "--json")
    assert json.loads(dry.stdout)["emitted"] == {"fleet.scenarios": told["recording"]["events"]}


def test_metrics_count_exposure_and_disengagements_by_model_region_and_cause(quick_run: QuickRun) -> None:
    text = (quick_run.out / "metrics.prom").read_text()
    for version in (t["model_version"] for t in quick_run.summary["turns"]):
        assert re.search(rf'fleetwheel_\w*meters_total{{.*model_version="{version}".*region="', text), version
    assert re.search(r'fleetwheel_disengagements_total{cause="\w+",.*model_version="', text)
    assert "vehicle=" not in text


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    from tests.conftest import fleet

    (tmp_path / "thesis.tex").write_text("years of work")
    done = fleet("demo", "--quick", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "--out" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
