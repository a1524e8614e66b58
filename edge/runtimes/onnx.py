"""A policy by ONNX Runtime on the CPU: what drives a vehicle. No torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.policy import PLAN_POINTS, Observation, Plan
from model.rig import BadRig, Rig

INPUTS = ("images", "rays", "speed", "yaw_rate", "command")
OUTPUTS = ("modes", "confidence", "scale", "embedding")
PATCH_KEY = "patch_px"
"""In the graph's metadata: side of the image square behind one token."""
PAST, HISTORY_KEY = "past", "history"
"""A further input of graphs that see more than one instant, and in the metadata how many."""
GAPS_KEY = "gaps"
"""In the metadata "1" where speed and yaw rate may be NaN, and images black."""


class BadModel(ValueError):
    """A file that is no policy, or none for this rig: names the file and what is wrong with it."""


class OnnxPolicy:
    """model.policy.Policy over an exported graph, for one rig and any number of vehicles; one thread."""

    def __init__(self, model: Path | bytes, rig: Rig) -> None:
        """`model` is an ONNX file or its bytes. Raises BadModel."""
        self.rig = rig
        self._name = str(model) if isinstance(model, Path) else f"model of {len(model)} bytes"
        self._session = _session(model, self._name)
        self.patch_px = _patch_px(self._session, rig, self._name)
        self.history = _history(self._session, self._name)
        self.gaps = self._session.get_modelmeta().custom_metadata_map.get(GAPS_KEY) == "1"
        try:
            self._rays = rig.rays(self.patch_px)
        except BadRig as error:
            raise BadModel(f"{self._name}: {error}") from error
        self._check_outputs(self._first_plan())

    def plan(self, observation: Observation) -> Plan:
        """See model.policy.Policy."""
        images, past = observation.stacked(self.history)
        modes, confidence, scale_m, embedding = self._session.run(
            OUTPUTS,
            {
                "images": images,
                "rays": self._rays,
                "speed": observation.speed_mps.astype(np.float32, copy=False),
                "yaw_rate": observation.yaw_rate_radps.astype(np.float32, copy=False),
                "command": observation.command.astype(np.int64, copy=False),
            }
            | ({PAST: past} if self.history > 1 else {}),
        )
        return Plan(modes, confidence, scale_m, embedding)

    def _first_plan(self) -> Plan:
        """Also warms the runtime up, so that the first frame is not late."""
        try:
            return self.plan(_black(self.rig))
        except Exception as error:  # the runtime's own errors share no base class
            raise BadModel(f"{self._name}: does not run on rig {self.rig.name!r}: {_first_line(error)}") from error

    def _check_outputs(self, plan: Plan) -> None:
        modes = plan.modes.shape[1]
        expected = {"modes": (1, modes, PLAN_POINTS, 2), "confidence": (1, modes), "scale": plan.modes.shape}
        found = {"modes": plan.modes.shape, "confidence": plan.confidence.shape, "scale": plan.scale_m.shape}
        if expected != found or plan.embedding.ndim != 2:
            raise BadModel(f"{self._name}: gives {found}, must give {expected}")
        if not all(np.isfinite(a).all() for a in (plan.modes, plan.confidence, plan.scale_m, plan.embedding)):
            raise BadModel(f"{self._name}: plans are not finite on a black image")


def _session(model: Path | bytes, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if isinstance(model, Path) and not model.is_file():
        raise BadModel(f"{name}: there is no such file")
    try:
        source = str(model) if isinstance(model, Path) else model
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors share no base class
        raise BadModel(f"{name}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    inputs, outputs = {i.name for i in session.get_inputs()}, {o.name for o in session.get_outputs()}
    if inputs - {PAST} != set(INPUTS) or not set(OUTPUTS) <= outputs:
        raise BadModel(f"{name}: takes {sorted(inputs)} and gives {sorted(outputs)}; a policy takes {INPUTS}")
    return session


def _history(session: onnxruntime.InferenceSession, name: str) -> int:
    """Instants that the graph sees: as many as its metadata says, 1 where it has no input for the past."""
    text = session.get_modelmeta().custom_metadata_map.get(HISTORY_KEY, "1")
    asked = [PAST] if any(i.name == PAST for i in session.get_inputs()) else []
    if not text.isdigit() or not int(text) or (int(text) > 1) != bool(asked):
        raise BadModel(f"{name}: metadata {HISTORY_KEY} is {text!r}, and of the past it takes {asked}")
    return int(text)


def _patch_px(session: onnxruntime.InferenceSession, rig: Rig, name: str) -> int:
    """From the metadata; graphs without it tell by their number of rays."""
    text = session.get_modelmeta().custom_metadata_map.get(PATCH_KEY)
    if text is not None:
        if not text.isdigit() or int(text) < 1:
            raise BadModel(f"{name}: metadata {PATCH_KEY} is {text!r}, must be a positive number")
        return int(text)
    patches = next(i.shape[1] for i in session.get_inputs() if i.name == "rays")
    camera = rig.cameras[0]
    if not isinstance(patches, int) or patches < 1:
        raise BadModel(f"{name}: its metadata has no {PATCH_KEY}; export it again")
    return math.isqrt(camera.width_px * camera.height_px // patches)


def _black(rig: Rig) -> Observation:
    camera = rig.cameras[0]
    zero: NDArray[np.float32] = np.zeros(1, np.float32)
    images = np.zeros((1, len(rig.cameras), camera.height_px, camera.width_px, 3), np.uint8)
    return Observation(images, zero, zero, np.zeros(1, np.int64))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
