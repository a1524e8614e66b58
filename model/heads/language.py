"""Why the vehicle does what it does, in words of model/grammar.py, and what it looked at when it said so.

A small autoregressive decoder: each word attends to the patches of the scene, to the latents that the driving is
decided from, and to the words before it. Words that the grammar does not allow have no probability, neither in
training nor in speech: no rule can be cited that the table does not have, nor one for a cause that it is not for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkConfig
from model.grammar import CAUSE_AT, DIGEST, SLOTS, VOCABULARY, agreement, in_slot
from model.heads.head import Head, known_mean
from model.layers import Scene

LOOK_WEIGHT = 1.0
"""Of looking at the cause against saying a word."""
WHY_WEIGHT = 3.0
"""Of the cause and of its rule against any other word: an explanation that is wrong in them explains nothing."""
PATCH_RAD = 0.08
"""About half of what a patch is wide, in angle: how near its ray must pass by something to show it."""
SHOWN_RAD = 2.5 * PATCH_RAD
"""Nothing is looked at whose ball no ray comes this near to: no camera sees it."""


class OtherWords(ValueError):
    """The model was taught another vocabulary than model.grammar's: it would say one thing and mean another."""


class Heard(NamedTuple):
    """What is spoken about: `tokens` [B, N, D], `latents` [B, L, D] and `seen` as of Scene, and the `rays` [R, 6]
    of the first R tokens, which are the present frame's."""

    tokens: Tensor
    latents: Tensor
    seen: Tensor | None
    rays: Tensor


class Said(NamedTuple):
    """What was said: `words` [B, len(SLOTS)] ids; `look` [B, N], which tokens were looked at for the cause, sums
    to 1; `probability` [B] of these words, and `cause` [B] of the cause among them."""

    words: Tensor
    look: Tensor
    probability: Tensor
    cause: Tensor


class Language(Head[Heard]):
    """See the module; its depth is that of the decoder."""

    digest: Tensor
    follows: Tensor
    slots: Tensor
    weight: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, count = config.width, len(SLOTS)
        self.word = nn.Embedding(len(VOCABULARY), width)
        self.start = nn.Parameter(torch.randn(width))
        self.place = nn.Parameter(0.5 * torch.randn(count, width))
        self.blocks = nn.ModuleList(_Speech(width, config.heads) for _ in range(config.language))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(VOCABULARY))
        self.register_buffer("digest", torch.tensor(list(DIGEST), dtype=torch.uint8))
        self.register_buffer("follows", torch.from_numpy(agreement().copy()), persistent=False)
        self.register_buffer("slots", torch.from_numpy(in_slot().copy()), persistent=False)
        weight = torch.tensor([WHY_WEIGHT if slot in ("cause", "rule") else 1.0 for slot in SLOTS])
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, scene: Scene, ego: Tensor) -> Heard:
        assert scene.rays is not None, "the trunk gives the rays of what it saw"
        return Heard(scene.tokens, scene.latents, scene.seen, scene.rays.flatten(0, 1))

    def told(self, output: Heard) -> Tensor:
        """The words, int64 [B, len(SLOTS)]."""
        return self.say(output).words

    def loss(self, output: Heard, labels: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of the sentences, and of the look, in nats."""
        words, known = labels["words"].clamp(min=0), (labels["words"] >= 0).all(1)
        logits, look = self._speak(output, words[:, :-1])
        spoken = F.cross_entropy(logits.transpose(1, 2), words, reduction="none") @ self.weight
        target, shown = looked_at(output.rays, labels["look"])
        missed = -(target * (look[:, : target.shape[1]] + 1e-6).log()).sum(1)
        return known_mean(spoken, known) + LOOK_WEIGHT * known_mean(missed, shown & known)

    def say(self, heard: Heard) -> Said:
        """The likeliest word for each slot, one after the other. Raises OtherWords."""
        if bytes(self.digest.tolist()) != DIGEST:
            raise OtherWords("this model was taught another vocabulary than model/grammar.py has; train it again")
        words = torch.zeros((len(heard.tokens), 0), dtype=torch.int64, device=heard.tokens.device)
        chances = []
        for _ in SLOTS:
            logits, look = self._speak(heard, words)
            best = logits[:, -1].softmax(-1).max(-1)
            chances.append(best.values)
            words = torch.cat([words, best.indices[:, None]], 1)
        sure = torch.stack(chances, 1)
        return Said(words, look, sure.prod(1), sure[:, CAUSE_AT])

    def _speak(self, heard: Heard, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K + 1, V] of the words that follow each prefix of `words` [B, K], and the look [B, N] of the
        word for the cause, or of the last one before it."""
        before = torch.cat([self.start.expand(len(words), 1, -1), self.word(words)], 1)
        x = before + self.place[: before.shape[1]]
        look = heard.tokens.new_zeros(0)
        for block in self.blocks:
            x, look = block(x, heard.tokens, heard.latents, heard.seen)
        logits = self.out(self.norm(x)).masked_fill(~self._allowed(words), -1e9)
        return logits, look[:, min(CAUSE_AT, x.shape[1] - 1)]

    def _allowed(self, words: Tensor) -> Tensor:
        """[B, K + 1, V], which words may stand in each slot after the ones before it."""
        count = words.shape[1] + 1
        agreed = self.follows[words].long().cumprod(1).bool()
        first = torch.ones_like(self.follows[:1]).expand(len(words), 1, -1)
        return torch.cat([first, agreed], 1) & self.slots[:count]


class _Speech(nn.Module):
    """A pre-norm block: words look at patches, listen to latents and to earlier words, and think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.look_norm, self.query = nn.LayerNorm(width), nn.Linear(width, width)
        self.key_value, self.look_out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.listen_norm = nn.LayerNorm(width)
        self.listen = nn.MultiheadAttention(width, heads, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(3 * width, width),
        )

    def forward(self, x: Tensor, tokens: Tensor, latents: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, K, D] -> the same, and the look [B, K, N]: the mean of the heads' attention."""
        key, value = (self._split(part) for part in self.key_value(tokens).chunk(2, -1))
        query = self._split(self.query(self.look_norm(x)))
        nearness = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        if seen is not None:
            nearness = nearness.masked_fill(~seen[:, None, None], -1e9)
        look = nearness.softmax(-1)
        x = x + self.look_out((look @ value).transpose(1, 2).flatten(2))
        heard = torch.cat([latents, self.listen_norm(x)], 1)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        deaf = torch.cat([future.new_zeros(x.shape[1], latents.shape[1]), future], 1)
        x = x + self.listen(heard[:, latents.shape[1] :], heard, heard, attn_mask=deaf, need_weights=False)[0]
        return x + self.think(x), look.mean(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def looked_at(rays: Tensor, balls: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens show the balls [B, K, 4] of the label `look`: shares [B, N] that sum to 1 where some do, and
    whether they do, [B]. `rays` [N, 6] as of Rig.rays."""
    there = ~balls.isnan().any(-1)
    ball = torch.where(there[..., None], balls, 0.0)
    towards = ball[:, :, None, :3] - rays[:, 3:]
    away = towards.norm(dim=-1).clamp(min=1e-3)
    cosine = (towards * rays[:, :3]).sum(-1) / away
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    wide = torch.atan(ball[:, :, None, 3] / away) + PATCH_RAD
    near = (angle < wide - PATCH_RAD + SHOWN_RAD) & there[..., None]
    share = (torch.exp(-0.5 * (angle / wide) ** 2) * near).sum(1)
    shown = share.sum(1) > 0
    return share / share.sum(1, keepdim=True).clamp(min=1e-9), shown
