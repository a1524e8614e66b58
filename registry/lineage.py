"""Lineage: what was made from what, from an event to the vehicles that run what was learned from it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from registry.database import Database
from registry.errors import Refused


class Kind(StrEnum):
    """What can have a lineage, in the order in which one thing is made from another."""

    EVENT = "event"
    CLIP = "clip"
    DATASET = "dataset"
    RUN = "run"
    MODEL = "model"
    BUNDLE = "bundle"
    RELEASE = "release"
    VEHICLE = "vehicle"


class Node(NamedTuple):
    """A thing: its kind and its id within the kind. A vehicle is one as the *receiver* of a release."""

    kind: Kind
    id: str


MADE_FROM: dict[Kind, tuple[Kind, ...]] = {
    Kind.EVENT: (),
    Kind.CLIP: (Kind.EVENT,),
    Kind.DATASET: (Kind.CLIP, Kind.DATASET),
    Kind.RUN: (Kind.DATASET, Kind.MODEL),
    Kind.MODEL: (Kind.RUN,),
    Kind.BUNDLE: (Kind.MODEL,),
    Kind.RELEASE: (Kind.BUNDLE,),
    Kind.VEHICLE: (Kind.RELEASE,),
}
"""Kind -> kinds that it can be made from. A run starts from a model: that is how one turn follows another."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS edges (
    parent_kind TEXT NOT NULL, parent_id TEXT NOT NULL, child_kind TEXT NOT NULL, child_id TEXT NOT NULL,
    PRIMARY KEY (parent_kind, parent_id, child_kind, child_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS edges_up ON edges (child_kind, child_id, parent_kind, parent_id)
"""
_WALK = """
WITH RECURSIVE walk(kind, id) AS (
    SELECT {to}_kind, {to}_id FROM edges WHERE {of}_kind = ? AND {of}_id = ?
    UNION
    SELECT {to}_kind, {to}_id FROM edges JOIN walk ON {of}_kind = walk.kind AND {of}_id = walk.id
) SELECT kind, id FROM walk
"""
_UP = _WALK.format(to="parent", of="child")
_DOWN = _WALK.format(to="child", of="parent")


class Lineage:
    """Edges in a SQLite file; the graph has no cycle. Raises Retry (busy), Corrupt (file) and Refused."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def link(self, parents: Iterable[Node], child: Node) -> None:
        """Record that a thing was made from others; again is no change. Raises Refused, and records nothing, for
        an edge that MADE_FROM does not know and for one that would close a circle."""
        self.link_all((parent, child) for parent in parents)

    def link_all(self, edges: Iterable[tuple[Node, Node]]) -> None:
        """Record (parent, child) edges, all or none of them, as `link` does."""
        parents_of: dict[Node, list[Node]] = {}
        for parent, child in edges:
            _check(parent, child)
            parents_of.setdefault(child, []).append(parent)
        with self._database.transaction() as connection:
            for child, parents in parents_of.items():
                below = {(child.kind, child.id), *connection.execute(_DOWN, (child.kind.value, child.id))}
                if circle := [p.id for p in parents if (p.kind, p.id) in below]:
                    raise Refused(
                        f"{child.kind} {child.id} cannot be made from {circle[:5]}: those were made from it"
                    )
                rows = [(p.kind.value, p.id, child.kind.value, child.id) for p in parents]
                connection.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?, ?)", rows)

    def ancestors(self, node: Node, kind: Kind | None = None) -> list[Node]:
        """All it was made from, in the order of Kind and then id; only one kind where given."""
        return self._walk(_UP, node, kind)

    def descendants(self, node: Node, kind: Kind | None = None) -> list[Node]:
        """All that was made from it, in the order of Kind and then id; only one kind where given."""
        return self._walk(_DOWN, node, kind)

    def parents(self, node: Node) -> list[Node]:
        """What it was made from directly."""
        query = "SELECT parent_kind, parent_id FROM edges WHERE child_kind = ? AND child_id = ?"
        return self._walk(query, node, None)

    def forget(self, node: Node) -> None:
        """Erase a thing and its edges (erasure of a vehicle's clips). What is below it stays."""
        with self._database.transaction() as connection:
            for end in ("parent", "child"):
                statement = f"DELETE FROM edges WHERE {end}_kind = ? AND {end}_id = ?"  # noqa: S608  own names
                connection.execute(statement, (node.kind.value, node.id))

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    def _walk(self, query: str, node: Node, kind: Kind | None) -> list[Node]:
        rows = self._database.rows(query, (node.kind.value, node.id))
        found = (Node(Kind(str(k)), str(i)) for k, i in rows)
        return sorted((n for n in found if kind in (None, n.kind)), key=lambda n: (_ORDER[n.kind], n.id))


_ORDER = {kind: place for place, kind in enumerate(Kind)}


def _check(parent: Node, child: Node) -> None:
    if parent.kind not in MADE_FROM[child.kind]:
        allowed = [k.value for k in MADE_FROM[child.kind]]
        raise Refused(f"a {child.kind} is made from one of {allowed}, not from a {parent.kind} ({parent.id})")
    for node in (parent, child):
        if not node.id:
            raise Refused(f"a {node.kind} needs an id")
