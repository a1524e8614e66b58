"""Two processes with sharded parameters train the model that one process trains, and resume to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint import Checkpoint, load
from model.config import BadConfig
from model.long_run import Interrupted, Step, Watch
from model.ranks import ALONE, BadRanks, Ranks, grouped, joined
from model.sharded import share_of
from model.training import initial
from tests.conftest import ROOT
from tests.unit import sharded_worker as worker

GRADIENTS_DIFFER = 2e-6
"""Norm of the difference of two first gradients over the gradient's. Sums of the same float32 numbers in another
order: each addition rounds by 6e-8, some hundred of them in a row do not cancel. Measured 2e-7."""
LOSSES_DIFFER = 1e-5
"""Relative, over all steps. Measured 3e-7."""
WEIGHTS_DIFFER = 2e-3
"""Norm of the difference of two trained models over that of what training changed. AdamW divides by the root of
the second moment, so a gradient that is nothing but rounding (a bias of keys: attention does not depend on it)
moves its parameter a whole step, to either side. Measured 2e-4, nearly all of it in such biases."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left. One of the folders was begun by this one."""
    folder = tmp_path_factory.mktemp("two")
    steps: list[Step] = []
    asked = Watch(step=steps.append, stop=lambda: len(steps) + 1 >= worker.STOPPED_AT)
    with pytest.raises(Interrupted):
        worker.train(folder / "taken-over", ALONE, asked)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.unit.sharded_worker", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Checkpoint]:
    """The same run by this process: its losses, its model."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    losses = worker.train(folder, ALONE)
    return losses, load(folder.parent / "run.safetensors")


def apart(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], start: Mapping[str, Tensor] | None = None
) -> float:
    """Norm of the difference over the norm of one's distance from the start, or from nothing."""
    difference = torch.cat([(one[n] - other[n]).flatten() for n in one])
    distance = torch.cat([(one[n] - (start[n] if start else 0)).flatten() for n in one])
    return float(difference.norm() / distance.norm())


def trained_apart(one: Checkpoint, other: Checkpoint) -> float:
    """How far apart two runs of the same start ended."""
    return apart(one.weights, other.weights, initial(worker.NETWORK, worker.COURSE.seed).weights)


def test_gradients_losses_and_weights_of_one_and_of_two_processes_agree(
    two: Path, alone: tuple[list[float], Checkpoint]
) -> None:
    here = {name.removeprefix("net."): g for name, g in worker.first_gradients(ALONE).items()}
    there = {name.removeprefix("net."): g for name, g in load_file(two / "gradients-float32.safetensors").items()}
    assert apart(here, there) < GRADIENTS_DIFFER
    losses = json.loads((two / "facts.json").read_text())["losses"]
    assert losses == pytest.approx(alone[0], rel=LOSSES_DIFFER)
    assert trained_apart(alone[1], load(two / "whole.safetensors")) < WEIGHTS_DIFFER


def test_two_processes_resume_to_the_same_bits(two: Path) -> None:
    assert (two / "resumed.safetensors").read_bytes() == (two / "whole.safetensors").read_bytes()


def test_one_process_goes_on_with_what_two_began_and_two_with_what_one_began(
    two: Path, alone: tuple[list[float], Checkpoint]
) -> None:
    worker.train(two / "handed-on", ALONE)
    for folder in ("handed-on", "taken-over"):
        assert trained_apart(alone[1], load(two / f"{folder}.safetensors")) < WEIGHTS_DIFFER


def test_each_process_writes_its_own_shards_and_none_writes_pickles(two: Path) -> None:
    newest = max((two / "whole").glob("step-*"))
    assert len(list(newest.glob("shard-*.safetensors"))) == 2
    assert {p.suffix for p in newest.iterdir()} == {".safetensors", ".json"}
    sizes = [p.stat().st_size for p in newest.glob("shard-*.safetensors")]
    assert max(sizes) < 0.6 * sum(sizes)


def test_blocks_in_bfloat16_give_nearly_the_same_gradients(two: Path) -> None:
    """bfloat16 has 8 bits: 0.4 % a product, through some ten of them in a row."""
    exact, rounded = (load_file(two / f"gradients-{name}.safetensors") for name in ("float32", "bfloat16"))
    assert 1e-4 < apart(exact, rounded) < 0.05


def test_parts_that_processes_cannot_share_are_refused() -> None:
    assert [list(share_of(Ranks(rank, 3), 6)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(
        BadConfig, match="6 parts of a batch cannot be shared by 4 processes: set parts to a multiple"
    ):
        share_of(Ranks(0, 4), 6)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0"}, "start it with torchrun"),
        (dict.fromkeys(("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), "x"), "RANK is 'x'"),
    ],
)
def test_half_of_torchruns_environment_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(BadRanks, match=said), joined(environment):
        pass


def test_a_group_of_one_trains_as_a_process_alone(tmp_path: Path, alone: tuple[list[float], Checkpoint]) -> None:
    """As on a single GPU, where sharding brings the precision of the blocks and nothing else."""
    with grouped(0, 1, torch.device("cpu"), dist.HashStore()) as ranks:
        losses = worker.train(tmp_path / "one", ranks)
    assert losses == pytest.approx(alone[0], rel=LOSSES_DIFFER)
    assert trained_apart(alone[1], load(tmp_path / "one.safetensors")) < WEIGHTS_DIFFER


def test_without_torchrun_this_process_is_alone() -> None:
    with joined({}) as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.sum([1.5, 2]) == [1.5, 2]
        assert ranks.gather("x") == ["x"]
        if not torch.cuda.is_available():
            assert ranks.mesh is None
