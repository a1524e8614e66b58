"""A worker on a transport: requests from learning.jobs, starts and ends back to it."""

from __future__ import annotations

from jobs.runner import Worker
from streams.contracts.codec import Message
from streams.contracts.jobs import JobFinished, JobRequested
from streams.transport.base import Transport
from streams.transport.messages import Inbox, send

TOPIC, GROUP = "learning.jobs", "learning-workers"


def work_off(worker: Worker, transport: Transport, limit: int = 100, timeout_s: float = 0.0) -> list[JobFinished]:
    """Run what is requested now; the ends, [] where nothing was asked. Call it again and again.

    A request counts as taken only when its end is published: whatever kills this process before, or is raised
    here, the request comes again and the job goes on where it stopped. `timeout_s` is waited for a record: once
    more, up to `limit` times, where one is known to be there. Raises as Worker.run and Transport do.
    """
    inbox = Inbox(transport, GROUP, (TOPIC,))
    ends: list[JobFinished] = []
    try:
        for _ in range(limit):
            ends += _take_one(worker, inbox, timeout_s)
            if not inbox.lag():
                break
    except BaseException:
        transport.seek(GROUP, inbox.topics, transport.committed(GROUP, inbox.topics))
        raise
    return ends


def _take_one(worker: Worker, inbox: Inbox, timeout_s: float) -> list[JobFinished]:
    """One record, committed once what it asks for has its end."""

    def emit(message: Message) -> None:
        send(inbox.transport, TOPIC, message, source=f"jobs/{worker.name}")
        inbox.transport.flush()

    heard = inbox.receive(worker.clock.now_ns(), 1, timeout_s)
    ends = [worker.run(m, emit) for m in heard if isinstance(m, JobRequested)]
    inbox.done()
    return ends
