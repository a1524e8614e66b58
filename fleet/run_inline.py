"""`fleet streams run --engine inline`: one process over a broker, its states in a file. At least once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet.role import Work, run_role, say, stop_on_signals
from fleet.stages import make_stages
from fleet.streams import RunOptions, Tally, number
from registry.store import Store
from streams.contracts.clock import SystemClock
from streams.engines.inline import InlineEngine
from streams.engines.now import Now, record_time
from streams.engines.round import in_order
from streams.topology import topics_written
from streams.transport.base import Retry
from streams.transport.kafka import KafkaConfig, KafkaTransport


def run(options: RunOptions) -> None:
    """Until SIGINT or SIGTERM, or until nothing comes any more. Raises UnknownStage, ConnectionFailed,
    StateUnreadable, BadOption."""
    settings = dict(options.settings)
    # --set now=records: time passes as the records say, for a recording that is run again.
    recorded = settings.pop("now", "clock") == "records"
    state, limit = Path(settings.pop("state", "runs/inline")), number("limit", settings.pop("limit", "500"), int)
    store = Store(options.store)
    # What is not there is said before anything is done.
    in_order(make_stages(options.stages, store, options.of_stages))

    total, engines = Tally(), list[InlineEngine]()

    def begin() -> Work:
        if engines:  # its connection is over
            total.add(engines.pop())

        def work(transport: KafkaTransport) -> int:
            if not engines:
                engines.append(
                    InlineEngine(
                        transport,
                        make_stages(options.stages, store, options.of_stages),
                        SystemClock(),
                        sink=store,
                        state_dir=state,
                        group=options.group,
                        limit=limit,
                        by_partition=True,
                        now=_recorded(options.stages) if recorded else None,
                    )
                )
            try:
                return engines[0].step(timeout_s=1.0)
            except OSError as error:
                raise Retry(f"the state in {state} cannot be kept: {error}") from error

        return work

    say("streams", f"runs {', '.join(options.stages)} as group {options.group}, state in {state}; Ctrl-C ends it")
    kafka = KafkaConfig(options.kafka, prefix=options.prefix, options=settings)
    try:
        run_role("streams", kafka, begin, stop_on_signals(), options.idle_s)
    finally:
        if engines:
            say("streams", f"took {total.add(engines.pop())}")


def _recorded(stages: Sequence[str]) -> Now:
    """What records from outside say: a transport stamps what the engine itself writes with the machine's time."""
    own = topics_written(stages)
    return lambda records, last_ns: record_time([r for r in records if r.topic not in own], last_ns)
