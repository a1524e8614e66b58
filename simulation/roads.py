"""Curving roads without an end: periodic in their own length, so that a scene needs finite memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.arrays import Floats, Ints, wrap

PERIOD_M = 960.0
"""After this length a road repeats, shifted: the next kilometre looks like the last."""
STATION_M = 0.5
STATIONS = int(PERIOD_M / STATION_M)
HARMONICS: Ints = np.array([2, 3, 5, 8, 11, 14])
"""Waves of heading per period. The amplitudes' sum stays under 90 degrees, so no road crosses itself."""

EASING_STATIONS = 9
"""Over so many stations, 4.5 m, the curvature of a bend builds up."""
CURVE_ACCEL = 1.9
"""Lateral acceleration at which a curve is driven, m/s²."""
CURVE_BRAKING = 1.1
"""Deceleration with which a curve's speed is reached, m/s²."""


class Roads:
    """The centre lines of B scenes. Frenet coordinates: s along the line in m, without bound; d to the left.

    heading(s) is a sum of sines whose wavelengths divide PERIOD_M, so position(s + PERIOD_M) is
    position(s) + drift.
    """

    def __init__(
        self,
        amplitude_rad: Floats,
        phase_rad: Floats,
        bends: Sequence[Floats] | None = None,
        lines: Sequence[Floats | None] = (),
    ) -> None:
        """`amplitude_rad`, `phase_rad`: [B, len(HARMONICS)]. `bends`: for each road [N, 3], where a bend begins,
        its length in m and its turn in rad, which sum up to 0 over a period. `lines`: for each road that is
        recorded its centre line, [STATIONS + 1, 2], which replaces all that; it has one period only."""
        wave = 2 * np.pi * HARMONICS / PERIOD_M
        station = np.arange(STATIONS + 1) * STATION_M
        angle = wave[None, :, None] * station + phase_rad[:, :, None]
        self.heading = (amplitude_rad[:, :, None] * np.sin(angle)).sum(1)
        self.curvature = (amplitude_rad[:, :, None] * wave[None, :, None] * np.cos(angle)).sum(1)
        for row, bend in enumerate(bends or ()):
            if len(bend):
                self._bend(row, bend)
        middle = (self.heading[:, 1:] + self.heading[:, :-1]) / 2
        start = np.zeros((len(middle), 1))
        self.x = np.concatenate([start, np.cumsum(np.cos(middle), 1) * STATION_M], 1)
        self.y = np.concatenate([start, np.cumsum(np.sin(middle), 1) * STATION_M], 1)
        self.drift = np.stack([self.x[:, -1], self.y[:, -1]], -1)
        for row, line in enumerate(lines):
            if line is not None:
                self._follow(row, line)
        self.speed_cap = _speed_cap(self.curvature)
        self._row = np.arange(len(self.x))

    def _bend(self, row: int, bends: Floats) -> None:
        """Adds arcs to a road; their ends are eased as a steered wheel does."""
        station = np.arange(STATIONS + 1) * STATION_M
        turned = (np.clip((station[:, None] - bends[:, 0]) / bends[:, 1], 0.0, 1.0) * bends[:, 2]).sum(1)
        half = EASING_STATIONS // 2
        eased = np.convolve(np.pad(turned, half), np.ones(EASING_STATIONS) / EASING_STATIONS, "valid")
        # A road that ends its period as it began it: the last bits of the turns' sum must not add up.
        eased[-1] = eased[0]
        self.curvature[row] += np.gradient(eased, STATION_M)
        self.heading[row] += eased

    def _follow(self, row: int, line: Floats) -> None:
        """Makes a road of points STATION_M apart."""
        self.x[row], self.y[row] = line.T
        self.heading[row] = np.unwrap(np.arctan2(*np.gradient(line, axis=0).T[::-1]))
        self.curvature[row] = np.gradient(self.heading[row], STATION_M)
        self.drift[row] = line[-1] - line[0]

    def at(self, table: Floats, s: Floats) -> Floats:
        """A table of this class, [B, stations], interpolated at `s`, [B] or [B, K]."""
        position = np.mod(s, PERIOD_M) / STATION_M
        low = np.minimum(position.astype(np.int64), STATIONS - 1)
        row = self._row.reshape((-1,) + (1,) * (s.ndim - 1))
        fraction = position - low
        return np.asarray(table[row, low] * (1 - fraction) + table[row, low + 1] * fraction)

    def pose(self, s: Floats, d: Floats) -> tuple[Floats, Floats, Floats]:
        """World x, y and the road's heading at (s, d), shaped as `s`."""
        heading = self.at(self.heading, s)
        turns = np.floor(s / PERIOD_M)
        drift = self.drift.reshape((-1,) + (1,) * (s.ndim - 1) + (2,))
        x = self.at(self.x, s) + turns * drift[..., 0] - d * np.sin(heading)
        y = self.at(self.y, s) + turns * drift[..., 1] + d * np.cos(heading)
        return x, y, heading

    def middle(self, row: int, s: Floats) -> tuple[Floats, Floats, Floats]:
        """World x, y and heading of one road's centre line, shaped as `s`."""
        index = np.mod(s, PERIOD_M) / PERIOD_M * (self.x.shape[1] - 1)
        turn, station = np.floor(s / PERIOD_M), np.arange(self.x.shape[1])
        x = np.interp(index, station, self.x[row]) + turn * self.drift[row, 0]
        y = np.interp(index, station, self.y[row]) + turn * self.drift[row, 1]
        return x, y, np.interp(index, station, self.heading[row])

    def project(self, x: Floats, y: Floats, guess: Floats) -> tuple[Floats, Floats]:
        """(s, d) of world points [B], by Newton steps from a nearby `guess` of s."""
        s = guess
        d = np.zeros_like(s)
        for _ in range(3):
            px, py, heading = self.pose(s, np.zeros_like(s))
            dx, dy = x - px, y - py
            d = -dx * np.sin(heading) + dy * np.cos(heading)
            stretch = np.maximum(1 - self.at(self.curvature, s) * d, 0.2)
            s = s + (dx * np.cos(heading) + dy * np.sin(heading)) / stretch
        return s, d

    def heading_error(self, s: Floats, heading: Floats) -> Floats:
        """Heading relative to the road's, [B]."""
        return wrap(heading - self.at(self.heading, s))


def _speed_cap(curvature: Floats) -> Floats:
    """Fastest comfortable speed at each station, braking for what comes included, [B, stations]."""
    squared = CURVE_ACCEL / np.maximum(np.abs(curvature), 1e-4)
    gain = 2 * CURVE_BRAKING * STATION_M
    for _ in range(2):
        for i in range(STATIONS - 1, -1, -1):
            np.minimum(squared[:, i], squared[:, i + 1] + gain, out=squared[:, i])
        squared[:, -1] = squared[:, 0]
    return np.sqrt(squared)
