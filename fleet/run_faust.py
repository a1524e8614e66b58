"""`fleet streams run --engine faust`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet.stages import make_stages
from fleet.streams import BadOption, RunOptions, number
from registry.store import Store
from streams.contracts.clock import SystemClock
from streams.engines.faust_app import FaustConfig, run_worker
from streams.engines.now import clock_time, record_time

_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    # --set NAME    field of FaustConfig
    "web.port": ("web_port", int),
    "web.host": ("web_host", str),
    "limit": ("limit", int),
    "period_s": ("period_s", float),
    "session_s": ("session_s", float),
    "commit_s": ("commit_s", float),
    "replication": ("replication", int),
}


def run(options: RunOptions) -> None:
    """Until SIGINT or SIGTERM. Raises UnknownStage, BrokenFlow, BadOption, ConnectionFailed, WorkerFailed."""
    if options.idle_s is not None:
        raise BadOption("--idle: a Faust worker runs until it is stopped; leave it out")
    settings = dict(options.settings)
    # --set now=records: time passes as the records say, for a recording that is run again.
    now = record_time if settings.pop("now", "clock") == "records" else clock_time(SystemClock())
    store = Store(options.store)
    run_worker(
        _config(options, settings), make_stages(options.stages, store, options.of_stages), sink=store, now=now
    )


def _config(options: RunOptions, settings: dict[str, str]) -> FaustConfig:
    config = FaustConfig(options.kafka, options.prefix, options.group, options.instance)
    for name, text in settings.items():
        if name not in _SETTINGS:
            raise BadOption(f"--set {name}: the Faust engine knows now=records, {', '.join(_SETTINGS)}")
        field, kind = _SETTINGS[name]
        config = replace(config, **{field: number(name, text, kind)})
    return config
