"""The power budget and the meters, on machines that are made up file by file."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.budget import TARGETS, Budget, Target, Work, measured_watts, modelled_watts, roofline_s
from edge.meters import Ina3221Meter, NvmlMeter, RaplMeter, find_meter

WORK = Work(operations=8e9, weights=1_000_000, activations=1_000_000, kernels=100)


def test_the_budget_of_the_product() -> None:
    assert Budget().joules_per_frame == pytest.approx(2.083, abs=5e-4)
    assert Budget().ms_per_frame == pytest.approx(27.78, abs=5e-3)


def target(**changes: Any) -> Target:
    base = Target("t", {"fp32": 1e12, "fp16": 2e12, "int8": 4e12}, 1e9, 0.0, 1.0, 10.0, 50.0, "test")
    return dataclasses.replace(base, **changes)


def test_the_roofline_is_the_lower_roof() -> None:
    assert roofline_s(WORK, target(), "fp32") == pytest.approx(8e-3)
    assert roofline_s(WORK, target(), "int8") == pytest.approx(2e-3)
    assert roofline_s(WORK, target(bytes_per_s=1e8), "fp32") == pytest.approx(80e-3)
    assert roofline_s(WORK, target(bytes_per_s=1e8), "int8") == pytest.approx(20e-3)
    assert roofline_s(WORK, target(efficiency=0.5), "fp32") == pytest.approx(16e-3)
    assert roofline_s(WORK, target(kernel_s=1e-5), "fp32") == pytest.approx(9e-3)


def test_modelled_power_lies_between_idle_and_full_and_says_so() -> None:
    figure = modelled_watts(WORK, target(), "fp32", rate_hz=25)
    assert figure.source == "modelled"
    assert figure.value == pytest.approx(10 + 0.2 * 40)
    assert modelled_watts(WORK, target(), "fp32", rate_hz=1e6).value == 50
    assert modelled_watts(WORK, target(), "int8", rate_hz=25).value < figure.value


def test_declared_targets_fit_the_budget_and_name_their_origin() -> None:
    for name, declared in TARGETS.items():
        assert declared.hardware == name
        assert declared.origin
        assert 0 < declared.idle_w < declared.full_w <= Budget().watts
        assert declared.operations_per_s["fp32"] <= declared.operations_per_s["int8"]


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class FakeMeter:
    name = "fake"

    def __init__(self, joules: Callable[[], float]) -> None:
        self._joules, self._begin = joules, 0.0

    def start(self) -> None:
        self._begin = self._joules()

    def stop(self) -> float:
        return self._joules() - self._begin


@pytest.mark.parametrize(("inference_s", "frames_per_s"), [(0.005, 10.0), (0.4, 2.5)])
def test_measured_power_is_energy_over_the_time_it_really_took(inference_s: float, frames_per_s: float) -> None:
    clock, frames = FakeTime(), 0

    def infer() -> None:
        nonlocal frames
        frames += 1
        clock.sleep(inference_s)

    meter = FakeMeter(lambda: 7.0 * clock.now_s + 2.0 * frames)
    figure = measured_watts(meter, infer, 10.0, seconds=2.0, now_s=lambda: clock.now_s, sleep=clock.sleep)
    assert frames == 20
    assert figure.source == "measured"
    assert figure.value == pytest.approx(7.0 + 2.0 * frames_per_s)


def _write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def test_rapl_adds_the_packages_and_survives_the_wrap(tmp_path: Path) -> None:
    powercap = tmp_path / "class" / "powercap"
    zones = [_write(powercap / f"intel-rapl:{n}", energy_uj=900, max_energy_range_uj=1000) for n in (0, 1)]
    _write(powercap / "intel-rapl:0:0", energy_uj=5, max_energy_range_uj=1000)
    meter = find_meter(gpu=False, sysfs=tmp_path)
    assert isinstance(meter, RaplMeter)
    meter.start()
    _write(zones[0], energy_uj=950)
    _write(zones[1], energy_uj=100)
    assert meter.stop() == pytest.approx((50 + 200) / 1e6)


def test_a_meter_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    _write(tmp_path / "class" / "powercap" / "intel-rapl:0", max_energy_range_uj=1000)
    assert find_meter(gpu=False, sysfs=tmp_path) is None
    assert find_meter(gpu=False, sysfs=tmp_path / "empty") is None


@pytest.mark.parametrize(
    ("labels", "watts"),
    [
        (["VDD_IN", "VDD_CPU_GPU_CV"], 5.0 * 2.0),
        (["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], 5.0 * (2.0 + 3.0 + 4.0)),
    ],
)
def test_a_board_is_measured_over_the_rails_that_feed_it_whole(
    tmp_path: Path, labels: list[str], watts: float
) -> None:
    rails: dict[str, object] = {"name": "ina3221"}
    for n, label in enumerate(labels, 1):
        rails |= {f"in{n}_label": label, f"in{n}_input": 5000, f"curr{n}_input": 1000 * (n + 1)}
    _write(tmp_path / "class" / "hwmon" / "hwmon3", **rails)
    _write(tmp_path / "class" / "hwmon" / "hwmon4", name="coretemp")
    meter = find_meter(gpu=True, sysfs=tmp_path)
    assert isinstance(meter, Ina3221Meter)
    ticks = iter(range(1000))
    meter._now_s = lambda: float(next(ticks))
    meter.start()
    energy = meter.stop()
    assert energy == pytest.approx(watts * (next(ticks) - 1))


def test_a_board_with_an_unknown_set_of_rails_has_no_meter(tmp_path: Path) -> None:
    rails = {"name": "ina3221", "in1_label": "VDD_CPU_CV", "in1_input": 5000, "curr1_input": 100}
    _write(tmp_path / "class" / "hwmon" / "hwmon0", **rails)
    assert find_meter(gpu=False, sysfs=tmp_path) is None


class FakeNvml:
    """libnvidia-ml as far as the meter knows it."""

    def __init__(self, fails: str = "") -> None:
        self.energy_mj, self._fails = 1000, fails

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 9 if self._fails == "init" else 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802
        return 0 if index == 0 else 2

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, energy: Any) -> int:  # noqa: N802
        energy._obj.value = self.energy_mj
        return 3 if self._fails == "energy" else 0


def test_nvml_counts_millijoules() -> None:
    library = FakeNvml()
    meter = NvmlMeter(library)  # type: ignore[arg-type]
    meter.start()
    library.energy_mj += 2500
    assert meter.stop() == 2.5


@pytest.mark.parametrize("fails", ["init", "energy"])
def test_a_gpu_that_does_not_count_has_no_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml(fails))
    assert find_meter(gpu=True, sysfs=tmp_path) is None
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml())
    assert isinstance(find_meter(gpu=True, sysfs=tmp_path), NvmlMeter)
