"""Two processes with sharded parameters train the model that one process trains, and resume to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint, load
from model.config import BadConfig
from model.long_run import Interrupted, Step, Watch
from model.ranks import ALONE, BadRanks, Ranks, joined
from model.sharded import share_of
from tests.conftest import ROOT
from tests.unit import sharded_worker as worker

LARGEST_DIFFERENCE = 2e-5
"""Between weights of one and of two processes after 8 steps, relative to the largest change of a weight. They differ in
the order in which float32 gradients (1e-7 each) and the squares of their norm are added; AdamW divides by the root of
the second moment, so where a gradient is nearly nothing, its rounding error is a share of the whole step. Measured:
see the assertion's message."""


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
def alone(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same run by this process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    worker.train(folder, ALONE)
    return load(folder.parent / "run.safetensors")


def difference(one: Checkpoint, other: Checkpoint) -> float:
    """The largest between two weights, relative to the largest change that training made to any."""
    from model.training import initial

    before = initial(worker.NETWORK, worker.COURSE.seed).weights
    change = max(float((one.weights[n] - before[n]).abs().max()) for n in before)
    return max(float((one.weights[n] - other.weights[n]).abs().max()) for n in before) / change


def test_sharded_and_single_training_agree(two: Path, alone: Checkpoint) -> None:
    assert difference(alone, load(two / "whole.safetensors")) < LARGEST_DIFFERENCE


def test_two_processes_resume_to_the_same_bits(two: Path) -> None:
    assert (two / "resumed.safetensors").read_bytes() == (two / "whole.safetensors").read_bytes()


def test_one_process_goes_on_with_what_two_began_and_two_with_what_one_began(two: Path, alone: Checkpoint) -> None:
    worker.train(two / "handed-on", ALONE)
    assert difference(alone, load(two / "handed-on.safetensors")) < LARGEST_DIFFERENCE
    assert difference(alone, load(two / "taken-over.safetensors")) < LARGEST_DIFFERENCE


def test_each_process_writes_its_own_shards_and_none_writes_pickles(two: Path) -> None:
    newest = max((two / "whole").glob("step-*"))
    assert len(list(newest.glob("shard-*.safetensors"))) == 2
    assert {p.suffix for p in newest.iterdir()} == {".safetensors", ".json"}
    sizes = [p.stat().st_size for p in newest.glob("shard-*.safetensors")]
    assert max(sizes) < 0.6 * sum(sizes)


def test_blocks_in_bfloat16_give_nearly_the_same_gradients(two: Path) -> None:
    """bfloat16 has 8 bits: 0.4 % a product, of which many are averaged."""
    facts = json.loads((two / "facts.json").read_text())
    assert facts["bfloat16"] == pytest.approx(facts["float32"], rel=0.03)
    assert facts["bfloat16"] != facts["float32"]


def test_parts_that_processes_cannot_share_are_refused(two: Path) -> None:
    assert (
        "3 parts of a batch cannot be shared by 2 processes"
        in json.loads((two / "facts.json").read_text())["refused"]
    )
    assert [list(share_of(Ranks(rank, 3), 6)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(BadConfig, match="multiple of 4"):
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


def test_without_torchrun_this_process_is_alone() -> None:
    with joined({}) as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.sum([1.5, 2]) == [1.5, 2]
        assert ranks.gather("x") == ["x"]
        if not torch.cuda.is_available():
            assert ranks.mesh is None


def test_differences_are_seen() -> None:
    """The yardstick itself."""
    from model.training import initial

    first, other = initial(worker.NETWORK, 1), initial(worker.NETWORK, 2)
    assert difference(other, first) == pytest.approx(1.0)
    assert np.isfinite(difference(other, first))
