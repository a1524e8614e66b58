"""What a person sees while a run goes on: one line that moves, and one that stays for each thing done."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Watcher:
    """Shows progress on stderr. Call it with (what, done, of, detail); `what` that changes begins a new line."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            refresh_per_second=4,
        )
        self._tasks: dict[str, TaskID] = {}
        self._plain = not self._console.is_terminal
        self._told_s = 0.0

    def __enter__(self) -> Watcher:
        if not self._plain:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._plain:
            self._progress.stop()

    def __call__(self, what: str, done: int, of: int, detail: str) -> None:
        """See the class."""
        if self._plain:
            self._line(what, done, of, detail)
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=max(of, 1), detail="")
        self._progress.update(self._tasks[what], completed=done, total=max(of, 1), detail=detail[:60])

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _line(self, what: str, done: int, of: int, detail: str) -> None:
        """Without a terminal: a new thing, its end, and a sign of life every 15 s."""
        begun = what in self._tasks
        self._tasks[what] = TaskID(0)
        ended = done >= of
        if not begun or (ended and of > 1) or time.monotonic() - self._told_s > 15:
            self._told_s = time.monotonic()
            self._console.print(f"{what}: {done}/{of} {detail}", highlight=False, markup=False, soft_wrap=True)
