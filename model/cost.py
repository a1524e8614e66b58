"""What a training step costs, and what the hardware could do at best: from these comes the utilisation (MFU)."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import NetworkConfig
from model.losses import imitation_loss
from model.network import Network
from model.policy import PLAN_POINTS
from model.rig import Rig

PEAK_FLOPS = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Dense bfloat16 products by a part of the GPU's name, the first that fits; NVIDIA's data sheets, without
sparsity."""


def flops_per_sample(network: NetworkConfig, rig: Rig) -> float:
    """Floating-point operations of products and convolutions, forward and backward, for one frame with its
    history, other heads than the one that drives left out. Counted on shapes alone: nothing is computed."""
    camera, count = rig.cameras[0], 2
    shape = (count, network.history * len(rig.cameras), camera.height_px, camera.width_px, 3)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        images, rays = torch.zeros(shape, dtype=torch.uint8), torch.zeros(rig.rays(network.patch_px).shape)
        speed, command = torch.zeros(count), torch.zeros(count, dtype=torch.int64)
        past = torch.zeros(count, network.history - 1, 2) if network.history > 1 else None
        output = Network(network)(images, rays, speed, speed, command, past)
        torch.autograd.backward(imitation_loss(output, torch.zeros(count, PLAN_POINTS, 2)).total)
    return float(counter.get_total_flops() / count)


def accelerator() -> str:
    """The GPU's name, or nothing."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def peak_flops(name: str) -> float | None:
    """What a GPU of that name could do at best in a second; None where it is not known, and for no GPU."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
