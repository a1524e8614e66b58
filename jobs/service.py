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

    A request counts as taken only when its end is published: whatever kills this process before, the request
    comes again and the job goes on where it stopped. Raises as Worker.run and Transport do.
    """

    def emit(message: Message) -> None:
        send(transport, TOPIC, message, source=f"jobs/{worker.name}")
        transport.flush()

    inbox = Inbox(transport, GROUP, (TOPIC,))
    heard = inbox.receive(worker.clock.now_ns(), limit, timeout_s)
    ends = worker.run_all((m for m in heard if isinstance(m, JobRequested)), emit)
    inbox.done()
    return ends
