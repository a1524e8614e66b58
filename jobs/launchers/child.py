"""The other end of launchers/local.py: `python -m jobs.launchers.child [LOCK]` runs one call and ends.

The task is the first line of standard input; progress and the answer are lines on the standard output it was given
(what the called code prints goes to standard error). When standard input closes, its parent is gone, so it ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import msgspec

from jobs.launchers.local import TRANSIENT, Answer, StepTask, Task, as_job_error
from jobs.step import Json, Progress, Step, Work, perform

ORPHANED = 3
"""Exit status of a child whose parent is gone."""


def main(arguments: list[str]) -> None:
    """Take the task, do it, answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _held(arguments):
        answer = _answer(task, answers)
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()
    os._exit(0)  # no finaliser of a library may keep a finished step from ending


def step(argument: bytes, progress: Progress) -> Json:
    """Run a step of a job."""
    task = msgspec.json.decode(argument, type=StepTask)
    described = Step(**{**task.step, "needs": tuple(task.step["needs"])})
    return perform(described, Work(task.request, task.context, task.inputs, task.now_ns, progress, task.key))


def _answer(task: Task, answers: BinaryIO) -> Answer:
    def progress(done: int, of: int, what: str) -> None:
        answers.write(msgspec.json.encode(["progress", done, of, what]) + b"\n")
        answers.flush()

    module, _, name = task.function.partition(":")
    function: Callable[[bytes, Progress], Json] = getattr(import_module(module), name)
    try:
        return Answer(result=function(bytes(task.argument), progress))
    except Exception as error:
        traceback.print_exc()
        return Answer(error=str(as_job_error(error)), transient=isinstance(error, TRANSIENT))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os._exit(ORPHANED)


@contextmanager
def _held(arguments: list[str]) -> Iterator[None]:
    """Hold the lock file, if one is named: an orphan of a killed worker must end before its successor begins."""
    with ExitStack() as stack:
        for name in arguments:
            fcntl.flock(stack.enter_context(Path(name).open("w")), fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
