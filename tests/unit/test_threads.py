"""A process of Fleetwheel computes in one thread, also where nobody has set the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MULTIPLY = (
    "import os, fleet, numpy; a = numpy.ones((512, 512), 'f4'); a @ a; print(len(os.listdir('/proc/self/task')))"
)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc")
def test_matrices_are_multiplied_in_one_thread() -> None:
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", MULTIPLY]
    done = subprocess.run(command, env=unset, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["1"]
