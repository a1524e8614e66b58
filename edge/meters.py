"""Power meters that a computer may have: RAPL (x86 CPUs), NVML (NVIDIA GPUs), INA3221 (Jetson boards)."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Protocol

SAMPLE_S = 0.02
"""INA3221 tells power, not energy: it is sampled this often."""
WHOLE_BOARD: tuple[frozenset[str], ...] = (
    frozenset({"VDD_IN"}),
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}),
)
"""Rails that together feed a Jetson module (Orin NX and Nano; AGX Orin), by their labels in Jetson Linux."""


class Meter(Protocol):
    """Energy between `start` and `stop`, which alternate. Reading may take milliseconds; raises OSError where the
    meter has gone."""

    name: str

    def start(self) -> None: ...

    def stop(self) -> float:
        """J since `start`."""
        ...


class RaplMeter:
    """Energy of all CPU packages (Linux powercap, intel-rapl; AMD shows itself there, too)."""

    name = "rapl"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._begin: list[int] = []

    def start(self) -> None:
        self._begin = self._read()

    def stop(self) -> float:
        wraps = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        moved = zip(self._begin, self._read(), wraps, strict=True)
        return sum((end - begin) % wrap for begin, end, wrap in moved) / 1e6

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


class Ina3221Meter:
    """Energy of a board's rails, from voltage (mV) and current (mA) of each, sampled by a thread."""

    name = "ina3221"

    def __init__(self, rails: list[tuple[Path, Path]], now_s: Callable[[], float] = time.monotonic) -> None:
        self._rails, self._now_s = rails, now_s
        self._stopped = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopped.clear()
        self._samples = [self._sample()]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._samples.append(self._sample())
        steps = pairwise(self._samples)
        return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in steps)

    def _watch(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            self._samples.append(self._sample())

    def _sample(self) -> tuple[float, float]:
        watts = sum(int(volts.read_text()) * int(amperes.read_text()) for volts, amperes in self._rails) / 1e6
        return self._now_s(), watts


class NvmlMeter:
    """Energy of the first NVIDIA GPU since its driver was loaded (nvmlDeviceGetTotalEnergyConsumption, mJ)."""

    name = "nvml"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._device = ctypes.c_void_p()
        self._begin_mj = 0
        _check(library.nvmlInit_v2(), "nvmlInit_v2")
        _check(
            library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)), "nvmlDeviceGetHandleByIndex_v2"
        )
        self._read()

    def start(self) -> None:
        self._begin_mj = self._read()

    def stop(self) -> float:
        return (self._read() - self._begin_mj) / 1e3

    def _read(self) -> int:
        energy = ctypes.c_ulonglong()
        call = self._library.nvmlDeviceGetTotalEnergyConsumption
        _check(call(self._device, ctypes.byref(energy)), "nvmlDeviceGetTotalEnergyConsumption")
        return energy.value


def find_meter(gpu: bool, sysfs: Path = Path("/sys")) -> Meter | None:
    """The meter of what computes here: the board's input rail before the GPU's (`gpu`) or the CPU's own counter;
    None where there is none that can be read."""
    return _ina3221(sysfs) or (_nvml() if gpu else _rapl(sysfs))


def _rapl(sysfs: Path) -> RaplMeter | None:
    folder = sysfs / "class" / "powercap"
    zones = sorted(z for z in folder.glob("intel-rapl:*") if z.name.count(":") == 1)
    meter = RaplMeter(zones)
    return meter if zones and _works(meter) else None


def _ina3221(sysfs: Path) -> Ina3221Meter | None:
    rails: dict[str, tuple[Path, Path]] = {}
    for chip in sorted((sysfs / "class" / "hwmon").glob("hwmon*")):
        if (chip / "name").is_file() and (chip / "name").read_text().strip() == "ina3221":
            for label in chip.glob("in*_label"):
                rail = label.name.removeprefix("in").removesuffix("_label")
                rails[label.read_text().strip()] = (chip / f"in{rail}_input", chip / f"curr{rail}_input")
    for whole in WHOLE_BOARD:
        if whole <= rails.keys():
            meter = Ina3221Meter([rails[name] for name in sorted(whole)])
            return meter if _works(meter) else None
    return None


def _nvml() -> NvmlMeter | None:
    try:
        return NvmlMeter(ctypes.CDLL("libnvidia-ml.so.1"))
    except (OSError, AttributeError):
        return None


def _works(meter: Meter) -> bool:
    try:
        meter.start()
        meter.stop()
    except (OSError, ValueError):
        return False
    return True


def _check(code: int, call: str) -> None:
    if code != 0:
        raise OSError(f"{call} failed with NVML error {code}")
