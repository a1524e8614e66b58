"""What networks here are made of: attention, blocks of it, and the scene that the trunk hands to its heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Scene(NamedTuple):
    """What was seen, for every head."""

    tokens: Tensor
    """[B, N, D], of all patches of all cameras, the present frame's first, then those of earlier frames."""
    latents: Tensor
    """[B, L, D]: one for the ego state, one per mode, then the free ones."""
    seen: Tensor | None = None
    """[B, N], which of the tokens are of something; None where all are."""
    rays: Tensor | None = None
    """[C, P, 6], those of the present frame's tokens, as of Rig.rays."""

    def everything(self) -> tuple[Tensor, Tensor | None]:
        """Tokens and latents as one set [B, N + L, D], and which of it are of something."""
        both = torch.cat([self.tokens, self.latents], 1)
        if self.seen is None:
            return both, None
        return both, torch.cat([self.seen, torch.ones_like(self.latents[..., 0], dtype=torch.bool)], 1)


class Attention(nn.Module):
    """Multi-head attention of queries [B, Q, D] to keys [B, K, D], or to those of them that are `seen` [B, K]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        key, value = self.key_value(keys).chunk(2, -1)
        heard = F.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(key),
            self._split(value),
            None if seen is None else seen[:, None, None],
        )
        out: Tensor = self.out(heard.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block; with `cross`, attends to other tokens before it attends to itself. `seen` is
    of those other tokens, or of its own where there are no others."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.look = Attention(width, heads) if cross else None
        self.look_norm = nn.LayerNorm(width) if cross else None
        self.attend = Attention(width, heads)
        self.attend_norm = nn.LayerNorm(width)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(3 * width, width),
        )

    def forward(self, x: Tensor, tokens: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        if self.look is not None and self.look_norm is not None and tokens is not None:
            x = x + self.look(self.look_norm(x), tokens, seen)
            seen = None
        normed = self.attend_norm(x)
        x = x + self.attend(normed, normed, seen)
        out: Tensor = x + self.think(x)
        return out
