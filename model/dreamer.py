"""A world model behind arrays: begin with real pictures, then ask for the next ones, action by action."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model.rig import Rig
from model.sequences import CONTEXT, BadSequences, check_actions
from model.world_model import State, WorldModel, pictures, view


class Dreamer:
    """B dreams through one rig. Deterministic."""

    def __init__(self, model: WorldModel, rig: Rig) -> None:
        self._model, self._rig, self._view = model.eval(), rig, view(rig)
        self._state: State | None = None

    def begin(self, images: NDArray[np.uint8], action: NDArray[np.floating]) -> None:
        """Real pictures [B, 2, C, H, W, 3], and what led from the first to the second, [B, 2] in m/s and rad/s.
        Raises BadSequences."""
        camera = self._rig.cameras[0]
        wanted = (len(images), CONTEXT, len(self._rig.cameras), camera.height_px, camera.width_px, 3)
        if images.shape != wanted or images.dtype != np.uint8:
            raise BadSequences(
                f"a dream of rig {self._rig.name!r} begins with uint8 {list(wanted)}, not {images.dtype} "
                f"{list(images.shape)}"
            )
        with torch.inference_mode():
            self._state = self._model.begin(
                self._view, torch.from_numpy(images), self._action(action, len(images))
            )

    def step(self, action: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The pictures [B, C, H, W, 3] STEP_S later, the vehicles having moved by `action` [B, 2]. Raises
        BadSequences, also before `begin`."""
        if self._state is None:
            raise BadSequences("a dream must begin with real pictures: call begin first")
        count = len(self._state.real)
        with torch.inference_mode():
            self._state = self._model.step(self._view, self._state, self._action(action, count))
            return pictures([self._state])[:, 0].numpy()

    def roll(self, actions: NDArray[np.floating]) -> NDArray[np.uint8]:
        """`step` for each of actions [B, K, 2]: images [B, K, C, H, W, 3]."""
        return np.stack([self.step(actions[:, k]) for k in range(actions.shape[1])], 1)

    @property
    def latents(self) -> NDArray[np.float32]:
        """Of the present instant, [B, C, D, h, w]. Raises BadSequences before `begin`."""
        if self._state is None:
            raise BadSequences("a dream must begin with real pictures: call begin first")
        return self._state.latents.numpy()

    def _action(self, action: NDArray[np.floating], count: int) -> torch.Tensor:
        if action.shape != (count, 2):
            raise BadSequences(f"an action for {count} dreams is [{count}, 2], not {list(action.shape)}")
        check_actions(action)
        return torch.from_numpy(np.asarray(action, np.float32))
