"""What describes a model and how it is trained. Values only: no torch, no simulation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields


class BadConfig(ValueError):
    """A configuration that cannot be used: names the field and the value."""


_FIRST_FIELDS = frozenset(
    ("patch_px", "width", "heads", "stem_width", "token_depth", "latent_depth", "latents", "modes")
)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The shape of the network (model/network.py). Everything else about it follows from these."""

    patch_px: int = 16
    """Side of the image square behind one token. The stem shrinks by 4, 2 and patch_px / 8."""
    width: int = 64
    """Features per token (D), also the size of the embedding."""
    heads: int = 4
    stem_width: int = 24
    """Channels after the first convolution; the second has twice as many."""
    token_depth: int = 0
    """Self-attention blocks over all patch tokens of all cameras, before they are pooled."""
    latent_depth: int = 3
    """Blocks over the latents; each attends to the patch tokens, then to one another."""
    latents: int = 6
    """Free latents beside one for the ego state and one per mode."""
    modes: int = 4
    """Candidate trajectories (M)."""
    history: int = 1
    """Frames seen (T), PLAN_PERIOD_S apart, the present one included."""
    gaps: int = 0
    """1: cameras, earlier frames, speed and yaw rate may be missing."""
    exits: int = 0
    """1: trajectories are learnt after every latent block, so that a shallower network may be cut out of this
    one."""
    occupancy: int = 0
    """Depth of the head of that name (model/heads); 0 leaves it out. So are the following."""
    tags: int = 0
    motion: int = 0
    risk: int = 0
    language: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "heads", "stem_width", "latent_depth", "modes", "history"):
            _positive("network", name, getattr(self, name))
        if self.patch_px < 8 or self.patch_px % 8:
            raise BadConfig(f"network: patch_px {self.patch_px} must be a multiple of 8")
        if self.width % self.heads:
            raise BadConfig(f"network: width {self.width} is not a multiple of heads {self.heads}")
        for name in ("gaps", "exits"):
            if getattr(self, name) not in (0, 1):
                raise BadConfig(f"network: {name} {getattr(self, name)} must be 0 or 1")
        if self.history > 1 and not self.gaps:
            raise BadConfig(f"network: history {self.history} needs gaps 1: a drive begins without earlier frames")
        for name in ("token_depth", "latents", "occupancy", "tags", "motion", "risk", "language"):
            if getattr(self, name) < 0:
                raise BadConfig(f"network: {name} {getattr(self, name)} must not be negative")

    def to_json(self) -> str:
        """The configuration as JSON; `network_from_json` reads it back. Fields that came later are left out at
        their default: a model that does not need them keeps its bytes, and older releases read it."""
        kept = {f.name for f in fields(self) if f.name in _FIRST_FIELDS or getattr(self, f.name) != f.default}
        return json.dumps({k: v for k, v in asdict(self).items() if k in kept}, sort_keys=True)


def network_from_json(text: str) -> NetworkConfig:
    """Reads `NetworkConfig.to_json`. Unknown fields are refused, absent ones take their default. Raises
    BadConfig with what was wrong."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadConfig(f"network configuration is not JSON: {error}") from error
    if not isinstance(data, dict) or not all(type(v) is int for v in data.values()):
        raise BadConfig(f"network configuration must be an object of whole numbers, not {text[:80]!r}")
    unknown = set(data) - {f.name for f in fields(NetworkConfig)}
    if unknown:
        raise BadConfig(f"network configuration has unknown fields {sorted(unknown)}; a newer release wrote it")
    return NetworkConfig(**data)


@dataclass(frozen=True, slots=True)
class Balance:
    """The share of each manoeuvre among the frames that are drawn (model/data.py `manoeuvre`). Clips picked
    for being difficult hold many standing frames; learnt as they come, they teach the policy to stand."""

    standing: float = 0.10
    launching: float = 0.10
    braking: float = 0.22
    turning: float = 0.22
    cruising: float = 0.36
    largest_gain: float = 3.0
    """No frame is drawn more often than this many times its uniform share."""

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or sum(self.shares) <= 0:
            raise BadConfig(f"balance: shares {self.shares} must not be negative, nor all zero")
        if self.largest_gain < 1:
            raise BadConfig(f"balance: largest_gain {self.largest_gain} must be at least 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """In the order of `data.MANOEUVRES`."""
        return (self.standing, self.launching, self.braking, self.turning, self.cruising)


@dataclass(frozen=True, slots=True)
class Gaps:
    """How often what is missing (model/gaps.py); drawn for each sample by itself."""

    camera: float = 0.0
    """Probability of each camera; never all of a sample."""
    past: float = 0.0
    """Probability that all frames from some age on are missing, as when a drive begins."""
    signals: float = 0.0
    """Probability that speed and yaw rate are missing, as in a video."""

    def __post_init__(self) -> None:
        for name in ("camera", "past", "signals"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"gaps: {name} {getattr(self, name)} is not in 0..1")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """One run of the optimiser (AdamW, linear warm-up, cosine decay to zero)."""

    steps: int
    batch: int = 128
    peak_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.02
    largest_gradient: float = 1.0
    """Gradient norms above this are scaled down to it."""
    camera_dropout: float = 0.0
    """Probability that a batch is seen without one of its cameras."""
    gaps: Gaps = Gaps()
    replay_share: float = 0.0
    """Fine-tuning: the share of each batch drawn from the base samples."""
    slowed_share: float = 0.0
    """Fine-tuning: the share of free frames that are shown as a slower vehicle sees them (model/slowing.py)."""
    balance: Balance = Balance()
    parts: int = 2
    """Parts of a batch whose gradients are worked out apart and added in order: what does not fit a device at once
    is accumulated, and several processes share the parts among them (model/sharded.py)."""
    bf16: bool = False
    """On a GPU: the transformer blocks in bfloat16, everything else, gradients and weights in float32."""
    recompute: bool = False
    """Activations of the blocks are worked out again for the gradients instead of being kept."""
    compiled: bool = False
    """On a GPU: the blocks by torch.compile."""
    keep_every: int = 500
    """Steps between the checkpoints of a long run (model/long_run.py)."""
    threads: int = 2
    """Parts of a batch that are worked on at once on a CPU (model/gradients.py). The result does not depend on
    it."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "parts", "keep_every", "threads", "peak_rate", "largest_gradient"):
            _positive("training", name, getattr(self, name))
        for name in ("camera_dropout", "replay_share", "slowed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"training: {name} {getattr(self, name)} is not in 0..1")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise BadConfig("training: warmup_steps and weight_decay must not be negative")
        if self.parts > self.batch:
            raise BadConfig(f"training: parts {self.parts} are more than the batch has frames, {self.batch}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A complete run of the learning loop, as far as the model is concerned (model/recipes.py)."""

    name: str
    network: NetworkConfig
    base_frames: int
    """Frames of perturbed expert driving in base conditions that the first model is cloned from."""
    clone: TrainingConfig
    clips_per_turn: int
    """Clips selected per turn; the random arm of a benchmark gets as many."""
    fine_tune: TrainingConfig

    def __post_init__(self) -> None:
        _positive("recipe", "base_frames", self.base_frames)
        _positive("recipe", "clips_per_turn", self.clips_per_turn)


def _positive(owner: str, name: str, value: float) -> None:
    if not value > 0:
        raise BadConfig(f"{owner}: {name} {value} must be above 0")
