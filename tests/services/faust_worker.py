"""A Faust worker that plays recordings in recorded time: the process that FaustPlayer starts and kills."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from streams.contracts.ids import sha256_hex
from streams.engines.faust_app import FaustConfig, run_flows
from streams.engines.faust_flow import flows_of
from streams.engines.now import record_time
from tests.contract.recordings import RECORDINGS


class Folder:
    """A store of files; a file appears whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes, sha256: str | None = None) -> None:
        assert sha256 == sha256_hex(data)
        part = self._path.with_name(f"part-{os.getpid()}-{sha256}")
        part.write_bytes(data)
        part.replace(self._path / sha256)


def main() -> None:
    """One argument: JSON with bootstrap, group, member, folder, and the prefix of each recording."""
    words = json.loads(sys.argv[1])
    config = FaustConfig(
        words["bootstrap"],
        group=words["group"],
        member="player",
        web_port=0,
        period_s=0.1,
        session_s=6,
        commit_s=0.05,
    )
    flows = [
        f for name, prefix in words["prefixes"].items() for f in flows_of(RECORDINGS[name]().stages(), prefix)
    ]
    run_flows(config, flows, sink=Folder(Path(words["folder"]) / "contents"), now=record_time)


if __name__ == "__main__":
    main()
