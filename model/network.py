"""The network: patches of all cameras, the rays they look along and the ego state -> candidate trajectories.

Tokens of all cameras form one set; only their ray embeddings say which camera and where in it a token is
from, so any rig with any number of cameras can be given. A few latents attend to the tokens (Perceiver,
arXiv:2103.03206): on a CPU that is half of the cost of self-attention over all tokens.

With `history`, the images of earlier frames are further cameras with the same rays, marked with their age; the
stem also compares each with the one before it. With `gaps`, inputs may be missing: a black image is not looked
at, and learnt tokens stand for a speed or yaw rate that is NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkConfig
from model.heads import heads_of
from model.layers import Block, Scene
from model.policy import PLAN_POINTS, PLAN_STEP_S

COMMANDS = 4
PIXEL_MEAN, PIXEL_UNIT = 128.0, 64.0
SPEED_UNIT_MPS = 10.0
YAW_RATE_UNIT_RADPS = 0.5
ACCELERATION_UNIT_MPS2 = 3.0
SMALLEST_SCALE_M = 0.05
"""Floor of the predicted Laplace scale: errors below it matter to nobody, and must not rule the loss."""
BLACK = 8
"""An image without a value above this is missing: compression leaves black not quite 0, and no camera that works
is without noise."""


class Output(NamedTuple):
    """What the network gives: `modes` and `scale_m` [B, M, T, 2], `confidence` [B, M] (logits while
    training, see `Network.forward`), `embedding` [B, D]."""

    modes: Tensor
    confidence: Tensor
    scale_m: Tensor
    embedding: Tensor


class View(NamedTuple):
    """What a batch is taught by: the trajectories; those of each earlier exit, where the network has exits; and
    each head's own output by its name."""

    output: Output
    exits: tuple[Output, ...]
    heads: dict[str, Any]


class Network(nn.Module):
    """See the module. Inputs of `forward`: images uint8 [B, T * C, H, W, 3], newest first, T = config.history;
    rays float32 [C, P, 6] from `Rig.rays(config.patch_px)`; speed [B] m/s; yaw rate [B] rad/s; command int64 [B];
    past [B, T - 1, 2], speed and yaw rate at the earlier frames, NaN where not known: only if T > 1."""

    time_s: Tensor
    reach_m: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width, stem = config.width, config.stem_width
        self.eye = nn.Conv2d(3, stem, 6, stride=4, padding=1)
        self.stem = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(stem, 2 * stem, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * stem, width, config.patch_px // 8, stride=config.patch_px // 8),
        )
        self.ray = nn.Sequential(nn.Linear(6, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.token_blocks = nn.ModuleList(Block(width, config.heads, False) for _ in range(config.token_depth))
        self.token_norm = nn.LayerNorm(width)
        self.ego = nn.Sequential(nn.Linear(2, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.commands = nn.Parameter(torch.randn(COMMANDS, width))
        self.latents = nn.Parameter(torch.randn(config.modes + config.latents, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, True) for _ in range(config.latent_depth))
        self.norm = nn.LayerNorm(width)
        self.mode = nn.Sequential(
            nn.Linear(2 * width, 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, 1 + 4 * PLAN_POINTS),
        )
        time_s = torch.arange(1, PLAN_POINTS + 1, dtype=torch.float32) * PLAN_STEP_S
        self.register_buffer("time_s", time_s, persistent=False)
        reach_m = 0.5 * ACCELERATION_UNIT_MPS2 * time_s**2 + 0.5 * time_s
        self.register_buffer("reach_m", reach_m, persistent=False)
        self._add_gaps(config)
        self.heads = heads_of(config)

    def forward(
        self,
        images: Tensor,
        rays: Tensor,
        speed: Tensor,
        yaw_rate: Tensor,
        command: Tensor,
        past: Tensor | None = None,
    ) -> Output:
        """Trajectories with confidence *logits*; `plan` turns them into probabilities."""
        return self.drive(self.perceive(images, rays, speed, yaw_rate, command, past), speed)

    def perceive(
        self,
        images: Tensor,
        rays: Tensor,
        speed: Tensor,
        yaw_rate: Tensor,
        command: Tensor,
        past: Tensor | None = None,
    ) -> Scene:
        """The trunk: inputs as of `forward`."""
        tokens, seen = self._tokens(images, rays)
        latents = self._depths(tokens, seen, self._latents(speed, yaw_rate, command, past))[-1]
        return Scene(tokens, self.norm(latents), seen, rays)

    def drive(self, scene: Scene, speed: Tensor) -> Output:
        """The head that drives: see `forward`; speed [B] m/s."""
        latents = scene.latents
        embedding = latents.mean(1)
        per_mode = latents[:, 1 : 1 + self.config.modes]
        ego = latents[:, :1].expand(-1, self.config.modes, -1)
        if self.config.gaps:
            guess = SPEED_UNIT_MPS * F.softplus(self.pace(latents[:, 0]))[:, 0]
            speed = torch.where(speed.isnan(), guess, speed)
        return self._decode(self.mode(torch.cat([per_mode, ego], -1)), speed, embedding)

    def study(
        self,
        images: Tensor,
        rays: Tensor,
        speed: Tensor,
        yaw_rate: Tensor,
        command: Tensor,
        past: Tensor | None = None,
    ) -> View:
        """As `forward`, with what every exit and every head makes of it: what is trained."""
        tokens, seen = self._tokens(images, rays)
        depths = self._depths(tokens, seen, self._latents(speed, yaw_rate, command, past))
        scenes = [
            Scene(tokens, self.norm(latents), seen, rays)
            for latents in (depths if self.config.exits else depths[-1:])
        ]
        ego = torch.stack([speed, yaw_rate], -1)
        *exits, output = (self.drive(scene, speed) for scene in scenes)
        return View(output, tuple(exits), {name: head(scenes[-1], ego) for name, head in self.heads.items()})

    def plan(
        self,
        images: Tensor,
        rays: Tensor,
        speed: Tensor,
        yaw_rate: Tensor,
        command: Tensor,
        past: Tensor | None = None,
    ) -> Output:
        """As `forward`, confidences summing to 1 over the modes: what is exported and driven with."""
        out = self(images, rays, speed, yaw_rate, command, past)
        return Output(out.modes, out.confidence.softmax(-1), out.scale_m, out.embedding)

    def _add_gaps(self, config: NetworkConfig) -> None:
        """What stands for missing inputs, and tells earlier frames apart."""
        width, earlier = config.width, config.history - 1
        if config.gaps:
            self.blank = nn.Parameter(torch.randn(1, width))
            self.unknown = nn.Parameter(torch.randn(2, width))
            self.pace = nn.Linear(width, 1)
        if earlier:
            self.ages = nn.Parameter(torch.randn(earlier, width))
            self.before = nn.Conv2d(config.stem_width, 2 * config.stem_width, 3, stride=2, padding=1, bias=False)
            self.past = nn.Sequential(
                nn.Linear(4 * earlier, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
            )

    def _tokens(self, images: Tensor, rays: Tensor) -> tuple[Tensor, Tensor | None]:
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float()
        first = self._seen(pixels)
        patches = self.stem(first) if self.config.history == 1 else self._moving(first, images)
        features = patches.flatten(2).transpose(1, 2)
        tokens = features.view(images.shape[0], images.shape[1], *features.shape[1:]) + self._whence(rays)
        seen = None
        if self.config.gaps:
            tokens, seen = self._without_black(tokens, images)
        else:
            tokens = tokens.flatten(1, 2)
        for block in self.token_blocks:
            tokens = block(tokens, None, seen)
        normed: Tensor = self.token_norm(tokens)
        return normed, seen

    def _moving(self, first: Tensor, images: Tensor) -> Tensor:
        """The stem, where its second convolution also sees what the first made of the same camera a frame earlier:
        how things move is then told before patches are one token each. From [B * T * C, S, h, w]."""
        relu, second, bend, patch = self.stem
        here = relu(first)
        now = second(here)
        every = (images.shape[0], self.config.history, -1)
        lit = self._lit(images).view(every)[:, 1:, :, None, None, None]
        was = self.before(here).view(*every, *now.shape[1:])[:, 1:] * lit
        moved = torch.cat([was, torch.zeros_like(was[:, :1])], 1)
        patches: Tensor = patch(bend(now + moved.flatten(0, 2)))
        return patches

    def _lit(self, images: Tensor) -> Tensor:
        """[B, T * C], which images are not missing."""
        return images.flatten(2).amax(-1).int() > BLACK

    def _whence(self, rays: Tensor) -> Tensor:
        """Where each image looks from, and when: [T * C, P, D]."""
        where: Tensor = self.ray(rays)
        if self.config.history == 1:
            return where
        earlier = where + self.ages[:, None, None]
        return torch.cat([where, earlier.flatten(0, 1)])

    def _without_black(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T * C, P, D] as one set, with one learnt token so that there is always something to attend
        to, and which of them are of something."""
        lit = self._lit(images)
        tokens = torch.where(lit[..., None, None], tokens, 0.0)
        seen = lit[..., None].expand(-1, -1, tokens.shape[2]).flatten(1)
        blank = self.blank.expand(images.shape[0], -1, -1)
        return torch.cat([tokens.flatten(1, 2), blank], 1), torch.cat([seen, torch.ones_like(seen[:, :1])], 1)

    def _seen(self, pixels: Tensor) -> Tensor:
        """The first convolution of (pixels - PIXEL_MEAN) / PIXEL_UNIT, with the scaling done to the few
        weights instead of the many pixels: a sixth of the time of a training step."""
        weight = self.eye.weight / PIXEL_UNIT
        bias = self.eye.bias - PIXEL_MEAN * weight.sum((1, 2, 3)) if self.eye.bias is not None else None
        return F.conv2d(pixels, weight, bias, self.eye.stride, self.eye.padding)

    def _latents(self, speed: Tensor, yaw_rate: Tensor, command: Tensor, past: Tensor | None) -> Tensor:
        """What looks at the tokens, before it has looked."""
        state = torch.stack([speed / SPEED_UNIT_MPS, yaw_rate / YAW_RATE_UNIT_RADPS], -1)
        ego = self._ego(state) + self.commands[command]
        if past is not None:
            before = torch.stack([past[..., 0] / SPEED_UNIT_MPS, past[..., 1] / YAW_RATE_UNIT_RADPS], -1)
            missing = before.isnan()
            ego = ego + self.past(torch.cat([torch.where(missing, 0.0, before), missing.float()], -1).flatten(1))
        return torch.cat([ego.unsqueeze(1), self.latents + 0.5 * ego.unsqueeze(1)], 1)

    def _ego(self, state: Tensor) -> Tensor:
        if not self.config.gaps:
            plain: Tensor = self.ego(state)
            return plain
        missing = state.isnan()
        told: Tensor = self.ego(torch.where(missing, 0.0, state)) + missing.float() @ self.unknown
        return told

    def _depths(self, tokens: Tensor, seen: Tensor | None, latents: Tensor) -> list[Tensor]:
        """The latents after each block."""
        depths = []
        for block in self.blocks:
            latents = block(latents, tokens, seen)
            depths.append(latents)
        return depths

    def _decode(self, raw: Tensor, speed: Tensor, embedding: Tensor) -> Output:
        """Offsets from going straight on at constant speed, in units of what a vehicle can reach in the
        time, so that all outputs of the last layer are of order one."""
        offset, spread = raw[..., 1:].view(*raw.shape[:2], 2, PLAN_POINTS, 2).unbind(2)
        straight = speed[:, None] * self.time_s
        ahead = torch.stack([straight, torch.zeros_like(straight)], -1)
        reach = self.reach_m[:, None]
        scale_m = SMALLEST_SCALE_M + F.softplus(spread - 2.0) * reach
        return Output(ahead.unsqueeze(1) + offset * reach, raw[..., 0], scale_m, embedding)
