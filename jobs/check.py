"""Which clips may teach: label quality, broken clips, and no vehicle that teaches alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from jobs.context import Curation
from jobs.documents import Checked, ClipFacts, Curated, Labelled
from jobs.step import Work
from model.rig import THREE_CAMERAS, Rig
from registry.datasets import TRAIN, DatasetClip, load_dataset, make_dataset, save_dataset

LEAST_LABELLED_SHARE = 0.2
"""A 4 s clip without the driver's plan has labels for its first 1.6 s: two fifths."""
LARGEST_BAD_SHARE = 0.2
"""Of a clip's frames."""
LARGEST_DRIVEN_ERROR_M = 2.5
"""A driver's plan this far beside what the same driver then did is no plan of his."""
LARGEST_GAP_S = 1.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What stays, with its weight, and what does not."""

    weights: dict[str, float]
    """Clip id -> weight, > 0."""
    excluded: dict[str, str]
    cut_down: dict[str, float]
    """Vehicle -> factor."""


def check(work: Work) -> Checked:
    """The step: the dataset version without what must not teach."""
    requested = work.input("curate", Curated).dataset
    dataset = load_dataset(work.store, requested)
    facts = msgspec.json.decode(work.store.get(work.input("label", Labelled).facts), type=list[ClipFacts])
    curation = work.context.settings.curation
    judgement = judge(facts, curation)
    kept = [_weighted(c, judgement.weights[c.clip_id]) for c in dataset.clips if c.clip_id in judgement.weights]
    checked = make_dataset(kept, dataset.recipe, [requested])
    train = checked.split(TRAIN)
    reasons = refusals(train, curation)
    return Checked(
        dataset=save_dataset(work.store, checked),
        clips=len(checked.clips),
        vehicles=len({c.vehicle for c in checked.clips}),
        excluded=judgement.excluded,
        cut_down=judgement.cut_down,
        verdict="fail" if reasons else "pass",
        reasons=reasons,
    )


def judge(facts: Iterable[ClipFacts], curation: Curation) -> Judgement:
    """Exclude what is broken, then cut down vehicles that weigh too much among the training clips."""
    facts = list(facts)
    problems = {f.clip_id: problem(f, THREE_CAMERAS) for f in facts}
    good = [f for f in facts if not problems[f.clip_id]]
    factors = dominance(((f.vehicle, f.weight) for f in good if f.split == TRAIN), curation.poison_share)
    weights = {f.clip_id: f.weight * (factors.get(f.vehicle, 1.0) if f.split == TRAIN else 1.0) for f in good}
    return Judgement(weights, {c: p for c, p in problems.items() if p}, factors)


def problem(facts: ClipFacts, rig: Rig) -> str:
    """Why a clip must not be learnt from, "" where it may."""
    if facts.unreadable:
        return f"it cannot be read: {facts.unreadable}"
    names, size = sorted(c.name for c in rig.cameras), (rig.cameras[0].height_px, rig.cameras[0].width_px)
    if sorted(facts.cameras) != names or facts.shape[1:] != size:
        return f"its cameras {list(facts.cameras)} of {facts.shape[1:]} px are not rig {rig.name!r}"
    least = max(1, LEAST_LABELLED_SHARE * facts.frames)
    bad_share = LARGEST_BAD_SHARE * facts.frames
    findings = (
        (facts.dark_or_frozen, "its images show nothing, or stand still while the vehicle moves"),
        (facts.largest_gap_s > LARGEST_GAP_S, f"{facts.largest_gap_s:.1f} s without an image"),
        (facts.not_finite > bad_share, f"{facts.not_finite} frames without motion or label"),
        (facts.implausible > bad_share, f"{facts.implausible} labels contradict its speed"),
        (
            facts.driven_error_m > LARGEST_DRIVEN_ERROR_M,
            f"the driver's plan is {facts.driven_error_m:.1f} m beside what the driver did",
        ),
        (facts.labelled < least, f"{facts.labelled} of {facts.frames} frames have a label"),
    )
    return "; ".join(what for holds, what in findings if holds)


def dominance(weights: Iterable[tuple[str, float]], share: float) -> dict[str, float]:
    """Vehicle -> factor (< 1) on its weight, such that none has more than `share` of what then remains. With too
    few vehicles for that (fewer than 1 / share) all are made equal."""
    total: defaultdict[str, float] = defaultdict(float)
    for vehicle, weight in weights:
        total[vehicle] += weight
    ordered = sorted(total, key=lambda v: (total[v], v))
    cap = _cap([total[v] for v in ordered], share)
    return {v: cap / total[v] for v in ordered if total[v] > cap * (1 + 1e-9)}


def _cap(ascending: Sequence[float], share: float) -> float:
    """Where to cut weights so that the largest is `share` of the sum: with the n largest cut to c and the rest
    summing to r, c = share * (r + n * c)."""
    for cut in range(len(ascending)):
        room = 1 - share * cut
        if room <= 0:
            break
        cap = share * sum(ascending[: len(ascending) - cut]) / room
        if ascending[len(ascending) - cut - 1] <= cap:
            return cap
    return ascending[0] if ascending else 0.0


def refusals(train: Sequence[DatasetClip], curation: Curation) -> list[str]:
    """Why there must be no training on these clips."""
    if len(train) < curation.least_clips:
        return [f"{len(train)} usable clips to train on; at least {curation.least_clips} are needed"]
    return []


def _weighted(clip: DatasetClip, weight: float) -> DatasetClip:
    return msgspec.structs.replace(clip, weight=weight)
