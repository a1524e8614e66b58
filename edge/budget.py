"""The power budget: what a frame may cost, what it costs, and whether that was measured or modelled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge.meters import Meter

Source = Literal["measured", "modelled"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The computer's power and the rate at which frames come. 75 W at 36 Hz: 2.083 J and 27.78 ms a frame."""

    watts: float = 75.0
    rate_hz: float = 36.0

    @property
    def joules_per_frame(self) -> float:
        """Energy that a frame may take, J."""
        return self.watts / self.rate_hz

    @property
    def ms_per_frame(self) -> float:
        """Time until the next frame, ms."""
        return 1000 / self.rate_hz


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from."""

    value: float
    source: Source


@dataclass(frozen=True, slots=True)
class Work:
    """What one inference does, counted from the graph (edge/work.py)."""

    operations: float
    """Multiplications and additions of the matrix products and convolutions."""
    weights: int
    """Numbers."""
    activations: int
    """Numbers that the matrix products and convolutions read and write."""
    kernels: int
    """Nodes of the graph: each costs a start."""


@dataclass(frozen=True, slots=True)
class Target:
    """A computer that is declared, not present: the roofs of its roofline (Williams et al. 2009) and its power."""

    hardware: str
    operations_per_s: dict[Precision, float]
    """Dense peak."""
    bytes_per_s: float
    kernel_s: float
    """Start of a kernel, with a captured graph where there is one."""
    efficiency: float
    """Share of both roofs that small layers reach."""
    idle_w: float
    full_w: float
    origin: str
    """Where these numbers come from."""


TARGETS: dict[str, Target] = {
    t.hardware: t
    for t in (
        Target(
            "cpu-x86-64",
            {"fp32": 80e9, "fp16": 80e9, "int8": 320e9},
            bytes_per_s=20e9,
            kernel_s=2e-6,
            efficiency=0.35,
            idle_w=12.0,
            full_w=30.0,
            origin="declared: one 2.5 GHz core with two 256-bit FMA or VNNI units, one memory channel",
        ),
        Target(
            "orin-agx-64",
            {"fp32": 5.3e12, "fp16": 42.5e12, "int8": 85e12},
            bytes_per_s=204.8e9,
            kernel_s=4e-6,
            efficiency=0.25,
            idle_w=15.0,
            full_w=60.0,
            origin="NVIDIA Jetson AGX Orin data sheet: 64 GB module, GPU alone, dense; 15 W to 60 W",
        ),
    )
}
_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


def roofline_s(work: Work, target: Target, precision: Precision) -> float:
    """Modelled time of one inference, s: the slower of computing and moving, and the starts of the kernels."""
    moved = (work.weights + work.activations) * _BYTES[precision]
    compute_s = work.operations / target.operations_per_s[precision]
    return max(compute_s, moved / target.bytes_per_s) / target.efficiency + work.kernels * target.kernel_s


def modelled_watts(work: Work, target: Target, precision: Precision, rate_hz: float) -> Figure:
    """Mean power at a frame rate: idle, and full power for the share of time that inference takes. Full power
    while busy is an upper bound; what else the computer does is not in it."""
    busy = min(1.0, roofline_s(work, target, precision) * rate_hz)
    return Figure(target.idle_w + busy * (target.full_w - target.idle_w), "modelled")


def measured_watts(
    meter: Meter,
    infer: Callable[[], object],
    rate_hz: float,
    *,
    seconds: float = 3.0,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Figure:
    """Mean power while `infer` runs at a frame rate. Everything that the meter's rail feeds is in it."""
    meter.start()
    start_s = now_s()
    for frame in range(1, max(1, round(seconds * rate_hz)) + 1):
        infer()
        sleep(max(0.0, start_s + frame / rate_hz - now_s()))
    elapsed_s = now_s() - start_s
    return Figure(meter.stop() / elapsed_s, "measured")
