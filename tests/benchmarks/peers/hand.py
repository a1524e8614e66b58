"""confluent-kafka, a transaction a batch: `hand.py BOOTSTRAP PREFIX GROUP PROTOTYPES WORK`, until it is ended.

What an expert writes by hand: as many records a transaction as the batch engine takes, one process that holds all
partitions. It is held to the same events, windows and guarantee of what is committed. Its memory dies with it:
ids, prototypes and the open window; and it has no dead letters.
"""

from __future__ import annotations

import sys

from confluent_kafka import TopicPartition

from tests.benchmarks.peers.clients import consumer_of, places, producer_of
from tests.benchmarks.peers.stages import work_of

LIMIT = 16_000


def main(bootstrap: str, prefix: str, group: str, prototypes: str, what: str) -> None:
    consumer = consumer_of(bootstrap, prefix + group)
    producer = producer_of(bootstrap, {"transactional.id": prefix + group, "retry.backoff.ms": 2})
    producer.init_transactions()
    consumer.assign(consumer.committed(places(prefix)))
    work = work_of(what, prototypes)
    while True:
        messages = consumer.consume(1, 0.1)
        if not messages:
            continue
        messages += consumer.consume(LIMIT - 1, 0)
        producer.begin_transaction()
        for topic, key, headers, value in work.batch([bytes(m.value() or b"") for m in messages]):
            producer.produce(prefix + topic, value, key, headers=headers)
        ends = {m.partition() or 0: (m.offset() or 0) + 1 for m in messages}
        offsets = [TopicPartition(f"{prefix}fleet.events", p, end) for p, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()


main(*sys.argv[1:])
