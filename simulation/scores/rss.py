"""Responsibility-Sensitive Safety: safe distances, dangerous situations, and responses to them that were none.

Shalev-Shwartz, Shammah, Shashua, "On a Formal Model of Safe and Scalable Self-driving Cars" (2017), as
intel/ad-rss-lib computes it (RssFormulas.cpp), with the parameters of its Appendix-ParameterDiscussion.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simulation.arrays import Bools, Floats, Ints
from simulation.scores.trace import STEP_S, Trace

STANDING_MPS = 0.05
"""Who is slower has stopped."""


@dataclass(frozen=True, slots=True)
class Rss:
    """Parameters, s, m/s² and m."""

    own_response_s: float = 1.0
    others_response_s: float = 2.0
    accel: float = 3.5
    """The worst acceleration of who has not yet reacted."""
    braking_least: float = 4.0
    """What one will brake with at least."""
    braking_most: float = 8.0
    """What one may brake with at most."""
    braking_correct: float = 3.0
    """What one in one's own lane will brake with at least when someone comes the wrong way."""
    lateral_accel: float = 0.2
    lateral_braking: float = 0.8
    margin_m: float = 0.10
    """Swaying to the side that means nothing."""


RSS = Rss()


def braking_m(speed_mps: ArrayLike, response_s: ArrayLike, accel: float, braking: ArrayLike) -> Floats:
    """Metres until one stands that way who speeds up during the response time and brakes then; who moves away even
    then covers a negative way."""
    speed, response = np.asarray(speed_mps, float), np.asarray(response_s, float)
    reached = speed + response * accel
    stopping = np.maximum(reached, 0.0) ** 2 / (2 * np.asarray(braking))
    return np.asarray(speed * response + accel * response**2 / 2 + stopping)


def following_m(rear_mps: ArrayLike, front_mps: ArrayLike, response_s: ArrayLike = 1.0, rss: Rss = RSS) -> Floats:
    """Safe distance between two of one direction, m: the gap that is not used up when the front one brakes hard
    and the rear one reacts late (definition 1)."""
    front = np.asarray(front_mps, float) ** 2 / (2 * rss.braking_most)
    return np.maximum(braking_m(rear_mps, response_s, rss.accel, rss.braking_least) - front, 0.0)


def opposing_m(
    correct_mps: ArrayLike,
    wrong_mps: ArrayLike,
    correct_response_s: ArrayLike = 1.0,
    wrong_response_s: ArrayLike = 2.0,
    rss: Rss = RSS,
) -> Floats:
    """Safe distance between two that meet, m: both stop before they do (definition 2)."""
    correct = braking_m(correct_mps, correct_response_s, rss.accel, rss.braking_correct)
    return correct + braking_m(wrong_mps, wrong_response_s, rss.accel, rss.braking_least)


def lateral_m(own_mps: ArrayLike, other_mps: ArrayLike, rss: Rss = RSS) -> Floats:
    """Safe distance to the side, m, of speeds towards each other (definition 6)."""
    own = braking_m(own_mps, rss.own_response_s, rss.lateral_accel, rss.lateral_braking)
    other = braking_m(other_mps, rss.others_response_s, rss.lateral_accel, rss.lateral_braking)
    return np.maximum(own + other + rss.margin_m, 0.0)


@dataclass(frozen=True, slots=True)
class Situations:
    """Of the vehicle and each other road user, each [B, T, K]; False for who is absent."""

    lengthwise: Bools
    """Nearer along the road than is safe."""
    sideways: Bools
    """Nearer across the road than is safe."""
    to_brake: Bools
    """It is the vehicle that would have to brake: it is behind, or they meet."""
    meeting: Bools
    """They drive towards each other."""

    @property
    def dangerous(self) -> Bools:
        """Both at once (definition 8)."""
        return self.lengthwise & self.sideways


def situations(trace: Trace, rss: Rss = RSS) -> Situations:
    """Every pair's situation, in route coordinates."""
    here, others = trace.place, trace.others
    apart_s, apart_d = others.s_m - here.s_m[..., None], others.d_m - here.d_m[..., None]
    own_along, own_aside = _parts(trace.ego.speed_mps, here.course_rad)
    along, aside = _parts(others.speed_mps, others.course_rad)
    own_along, own_aside = own_along[..., None], own_aside[..., None]
    ahead = np.where(own_along >= 0, apart_s, -apart_s) >= 0
    meeting = (own_along * along < 0) & (apart_s * (along - own_along) < 0)
    parting = (own_along * along < 0) & ~meeting
    own, other = np.abs(own_along), np.abs(along)
    rear_response = np.where(ahead, rss.own_response_s, rss.others_response_s)
    same = following_m(np.where(ahead, own, other), np.where(ahead, other, own), rear_response, rss)
    safe_s = np.where(parting, 0.0, np.where(meeting, _opposing(trace, own, other, rss), same))
    towards = np.where(apart_d >= 0, 1.0, -1.0)
    safe_d = lateral_m(own_aside * towards, -aside * towards, rss)
    gap_s, gap_d = np.abs(apart_s) - _extent(trace, True), np.abs(apart_d) - _extent(trace, False)
    present = others.present
    return Situations(
        present & (np.maximum(gap_s, 0.0) <= safe_s),
        present & (np.maximum(gap_d, 0.0) <= safe_d),
        present & (meeting | ahead),
        present & meeting,
    )


@dataclass(frozen=True, slots=True)
class Violations:
    """Each [B, T]."""

    danger: Bools
    """In a dangerous situation with anyone, whoever brought it about."""
    longitudinal: Bools
    """In one that began with the distance ahead, without braking as is due."""
    lateral: Bools
    """In one that began at the side, without ceasing to come nearer."""


def violations(trace: Trace, rss: Rss = RSS) -> Violations:
    """Where the vehicle did not respond properly (definitions 4 and 9): before the response time is over it may
    not speed up by more than is assumed of it, afterwards it must brake with what is assumed at least until it
    stands or the danger is over. Whether braking or steering is due depends on which distance was unsafe last."""
    found = situations(trace, rss)
    danger = found.dangerous
    since, sideways_last = _onsets(danger, found.lengthwise, trace.others.track)
    late = since * STEP_S >= rss.own_response_s
    least = np.where(found.meeting & ~trace.place.wrong_way[..., None], rss.braking_correct, rss.braking_least)
    accel, speed = trace.ego.accel_mps2[..., None], np.abs(trace.ego.speed_mps)[..., None]
    no_braking = np.where(late, (accel > -least) & (speed > STANDING_MPS), accel > rss.accel)
    towards = np.where(trace.others.d_m >= trace.place.d_m[..., None], 1.0, -1.0)
    aside = _parts(trace.ego.speed_mps, trace.place.course_rad)[1]
    nearing = aside[..., None] * towards
    change = np.gradient(aside, STEP_S, axis=1)[..., None] * towards
    still_nearing = (nearing > STANDING_MPS) & (change > -rss.lateral_braking)
    no_ceasing = np.where(late, still_nearing, change > rss.lateral_accel)
    return Violations(
        np.asarray(danger.any(-1)),
        np.asarray((danger & ~sideways_last & found.to_brake & no_braking).any(-1)),
        np.asarray((danger & sideways_last & no_ceasing).any(-1)),
    )


def shares(trace: Trace, rss: Rss = RSS) -> dict[str, Floats]:
    """Shares of the time, [B] each: in danger, and in violation lengthwise and sideways."""
    found = violations(trace, rss)
    return {
        "rss_danger": found.danger.mean(1),
        "rss_longitudinal": found.longitudinal.mean(1),
        "rss_lateral": found.lateral.mean(1),
    }


def _parts(speed_mps: Floats, course_rad: Floats) -> tuple[Floats, Floats]:
    return speed_mps * np.cos(course_rad), speed_mps * np.sin(course_rad)


def _opposing(trace: Trace, own: Floats, other: Floats, rss: Rss) -> Floats:
    """The vehicle is the correct one unless it is in the wrong lane."""
    mine = opposing_m(own, other, rss.own_response_s, rss.others_response_s, rss)
    theirs = opposing_m(other, own, rss.others_response_s, rss.own_response_s, rss)
    return np.where(trace.place.wrong_way[..., None], theirs, mine)


def _extent(trace: Trace, lengthwise: bool) -> Floats:
    """Half of the two boxes' summed extents along or across the road, [B, T, K]."""

    def half(length: ArrayLike, width: ArrayLike, course: Floats) -> Floats:
        c, s = np.abs(np.cos(course)), np.abs(np.sin(course))
        first, second = (c, s) if lengthwise else (s, c)
        return np.asarray((np.asarray(length) * first + np.asarray(width) * second) / 2)

    own = half(trace.body.length_m, trace.body.width_m, trace.place.course_rad)
    return own[..., None] + half(trace.others.length_m, trace.others.width_m, trace.others.course_rad)


def _onsets(danger: Bools, lengthwise: Bools, track: Ints) -> tuple[Floats, Bools]:
    """Steps since the present danger began, and whether the distance along the road was unsafe before it did,
    [B, T, K]."""
    same = np.zeros_like(danger)
    same[:, 1:] = track[:, 1:] == track[:, :-1]
    before, long_before = np.zeros_like(danger), np.zeros_like(danger)
    before[:, 1:], long_before[:, 1:] = danger[:, :-1], lengthwise[:, :-1]
    begins = danger & ~(before & same)
    steps = np.arange(danger.shape[1])[:, None]
    onset = np.maximum.accumulate(np.where(begins, steps, 0), 1)
    return (steps - onset).astype(np.float64), np.take_along_axis(long_before & same, onset, 1)
