"""The world model: pictures and the vehicle's motion -> the next pictures and their latents, again and again.

What a camera sees next is mostly what it sees now, from elsewhere. So each step moves latents and pixels to where
the vehicle's motion takes them (the distance of what is seen is learnt, never told), and paints only what moves by
itself or comes into view. Reprojection and learning are the two simulators of arXiv:2504.19077 in one; a state
that steps by actions alone, without looking at its own pictures again, is that of arXiv:2301.04104. Pixels are
looked up in the last real picture however long the dream: warping a warped picture would blur it a little more
every time.

Cameras share all weights, and are told apart by their rays and places alone: a rig may have any number of them,
anywhere. What comes into the view of one from that of another is looked up there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import BadConfig
from model.geometry import Eyes, eyes, identity, sample, sources
from model.network import SPEED_UNIT_MPS, YAW_RATE_UNIT_RADPS
from model.rig import Rig

CELL_PX = 4
"""Side of the square of pixels behind one cell of latents."""
RAY_FEATURES, PICTURE_FEATURES = 6, 6
SHOWN = (1, 2, 1, 3)
"""Channels of what latents show: raised, drift, share, paint; see `_Sight`."""
RAISED_UNIT_PER_M, RAISED_BIAS = 0.2, -3.0
DRIFT_UNIT = 0.05
"""Half pictures a step."""
SHARE_BIAS = -5.0
"""An untrained model paints next to nothing: it dreams what geometry says of an empty flat world."""


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """The shape of a world model."""

    width: int = 32
    """Features of a cell (D)."""
    depth: int = 1
    """Residual blocks in the encoder, and in the transition."""

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise BadConfig(f"world model: {name} {getattr(self, name)} must be at least 1")

    def to_json(self) -> str:
        """The configuration as JSON; `world_from_json` reads it back."""
        return json.dumps(asdict(self), sort_keys=True)


def world_from_json(text: str) -> WorldConfig:
    """Reads `WorldConfig.to_json`. Raises BadConfig."""
    try:
        return WorldConfig(**{str(k): int(v) for k, v in json.loads(text).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise BadConfig(f"world model configuration {text[:80]!r} is not usable: {error}") from error


class View(NamedTuple):
    """A rig as a world model looks through it: by cells, and by pixels."""

    cells: Eyes
    pixels: Eyes

    def take(self, cameras: list[int]) -> View:
        """Some of the cameras."""
        return View(self.cells.take(cameras), self.pixels.take(cameras))


def view(rig: Rig) -> View:
    """Raises BadRig where cells do not tile the pictures."""
    return View(eyes(rig, CELL_PX), eyes(rig, 1))


class State(NamedTuple):
    """An instant of B dreams of C cameras. Nothing else is carried from step to step."""

    latents: Tensor
    """[B, C, D, h, w], of unit mean square over D."""
    raised: Tensor
    """[B, C, 1, h, w], 1/m: how much nearer than the flat road what is seen is."""
    carried: Tensor
    """[B, C, 6, H, W], of each pixel: its place in the last real pictures (2), the share of it that is still shown
    (1), and what is painted instead, times its share (3)."""
    real: Tensor
    """[B, C, 3, H, W], 0..1: the last real picture."""

    @property
    def picture(self) -> Tensor:
        """[B, C, 3, H, W], 0..1 or a little beyond."""
        return self.carried[:, :, 2:3] * sample(self.real, self._places) + self.carried[:, :, 3:]

    @property
    def _places(self) -> Tensor:
        return self.carried[:, :, :2].permute(0, 1, 3, 4, 2)


class _Sight(NamedTuple):
    """What latents say is seen, [B, C, *, 2h, 2w]: how much nearer than the road (1/m), how it drifts by itself
    (half pictures a step), the share that must be painted, and the colour."""

    raised: Tensor
    drift: Tensor
    share: Tensor
    paint: Tensor


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class WorldModel(nn.Module):
    """See the module. Images are uint8 [B, T, C, H, W, 3], actions [B, 2] as of `Sequences`."""

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.eye = nn.Conv2d(PICTURE_FEATURES + 1, d, 6, stride=CELL_PX, padding=1)
        self.place = nn.Conv2d(RAY_FEATURES + 1, d, 1)
        self.reader = nn.Sequential(*(_Residual(d) for _ in range(config.depth)))
        self.act = nn.Linear(2, d)
        self.mix = nn.Conv2d(2 * d + 1, d, 3, padding=1)
        self.transition = nn.Sequential(*(_Residual(d) for _ in range(config.depth)))
        self.show = nn.Sequential(nn.ReLU(), nn.Conv2d(d, 4 * sum(SHOWN), 3, padding=1), nn.PixelShuffle(2))
        last = self.show[1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def begin(self, rig: View, images: Tensor, action: Tensor) -> State:
        """The instant of the second of two real pictures; `action` led from the first to it."""
        before, now = (images[:, i].movedim(-1, 2).float() / 255 for i in range(2))
        latents = self._encode(rig, before, now, action)
        height, width = now.shape[-2:]
        places = identity(now.shape[1], height, width).expand(len(now), -1, -1, -1, -1)
        carried = torch.cat([places, torch.ones_like(now[:, :, :1]), torch.zeros_like(now)], 2)
        return State(latents, _halved(self._sight(latents).raised), carried, now)

    def encode(self, rig: View, images: Tensor, action: Tensor) -> Tensor:
        """The latents of two real pictures, as of `begin`."""
        before, now = (images[:, i].movedim(-1, 2).float() / 255 for i in range(2))
        return self._encode(rig, before, now, action)

    def step(self, rig: View, state: State, action: Tensor) -> State:
        """STEP_S later, the vehicle having moved by `action`."""
        moved, outside = sources(rig.cells, rig.cells.ground + state.raised, action)
        carried_latents = sample(state.latents, moved)
        place = self.place(self._rays(rig)).expand_as(carried_latents)
        told = torch.cat([carried_latents, place + self._felt(action), outside], 2)
        change = self.transition(self.mix(told.flatten(0, 1))).unflatten(0, told.shape[:2])
        latents = _unit(carried_latents + change)
        sight = self._sight(latents)
        return State(latents, _halved(sight.raised), self._carry(rig, state.carried, sight, action), state.real)

    def _carry(self, rig: View, carried: Tensor, sight: _Sight, action: Tensor) -> Tensor:
        """Pixels moved to where they are seen, painted over where need be ("over" of Porter and Duff, 1984)."""
        raised, drift, share, paint = (_doubled(field) for field in sight)
        moved, _ = sources(rig.pixels, rig.pixels.ground + raised, action, drift)
        places, kept, painted = torch.split(sample(carried, moved), [2, 1, 3], 2)
        return torch.cat([places, kept * (1 - share), painted * (1 - share) + paint * share], 2)

    def _encode(self, rig: View, before: Tensor, now: Tensor, action: Tensor) -> Tensor:
        """What stands on the road is where the picture before, moved as flat road moves, differs from this one."""
        flat = rig.pixels.ground.expand(len(now), -1, -1, -1, -1)
        aligned = sample(before, sources(rig.pixels, flat, action)[0])
        ground = flat * 4
        seen = torch.cat([(now - 0.5) * 4, (now - aligned) * 8, ground], 2)
        features = self.eye(seen.flatten(0, 1)).unflatten(0, now.shape[:2])
        features = features + self.place(self._rays(rig)) + self._felt(action)
        return _unit(self.reader(features.flatten(0, 1)).unflatten(0, now.shape[:2]))

    def _rays(self, rig: View) -> Tensor:
        return torch.cat([rig.cells.features, rig.cells.ground * 4], 1)

    def _felt(self, action: Tensor) -> Tensor:
        felt: Tensor = self.act(action / action.new_tensor([SPEED_UNIT_MPS, YAW_RATE_UNIT_RADPS]))
        return felt[:, None, :, None, None]

    def _sight(self, latents: Tensor) -> _Sight:
        raw = self.show(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        raised, drift, share, paint = raw.split(SHOWN, 2)
        return _Sight(
            F.softplus(raised + RAISED_BIAS) * RAISED_UNIT_PER_M,
            drift * DRIFT_UNIT,
            torch.sigmoid(share + SHARE_BIAS),
            0.5 + paint / 4,
        )


def dream(model: WorldModel, rig: View, images: Tensor, actions: Tensor) -> list[State]:
    """One state for each of K steps. `images` [B, 2, C, H, W, 3] are real; `actions` [B, 1 + K, 2] led from the
    first of them to the second, and lead on from there."""
    states = [model.begin(rig, images, actions[:, 0])]
    for action in actions[:, 1:].unbind(1):
        states.append(model.step(rig, states[-1], action))
    return states[1:]


def pictures(states: Sequence[State]) -> Tensor:
    """What is dreamt, as images: uint8 [B, K, C, H, W, 3]."""
    seen = torch.stack([state.picture for state in states], 1).movedim(-3, -1)
    return (seen.clamp(0, 1) * 255).round().to(torch.uint8)


def _unit(latents: Tensor) -> Tensor:
    return latents * torch.rsqrt(latents.square().mean(-3, keepdim=True) + 1e-6)


def _halved(field: Tensor) -> Tensor:
    return torch.unflatten(F.avg_pool2d(field.flatten(0, 1), 2), 0, field.shape[:2])


def _doubled(field: Tensor) -> Tensor:
    wide = F.interpolate(field.flatten(0, 1), scale_factor=2, mode="bilinear", align_corners=False)
    return torch.unflatten(wide, 0, field.shape[:2])
