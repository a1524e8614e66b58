"""Which steps make a job: one table. A step's function is named, not imported: it runs in its own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jobs.step import Step

# What is evaluated is what ships, so compile comes before evaluate (docs/adr/0003).
_SHIP: tuple[Step, ...] = (
    #    name        function                             reads
    Step("compile", "jobs.compile:compile_model", ("label", "check", "train"), version=2),
    Step("evaluate", "jobs.evaluate.step:evaluate", ("label", "check", "train", "compile")),
    Step("gate", "jobs.gate:gate", ("evaluate", "compile")),
    Step("register", "jobs.register:register", ("check", "train", "compile", "evaluate", "gate"), ends=True),
    Step("sign", "jobs.sign:sign", ("check", "train", "compile", "evaluate", "register")),
    Step("promote", "jobs.register:promote", ("register", "sign"), ends=True),
)

CATALOG: Mapping[str, Sequence[Step]] = MappingProxyType(
    {
        # A better model from clips of the fleet.
        "learn": (
            Step("curate", "jobs.curate:curate", ends=True),
            Step("label", "jobs.label:label", ("curate",), own_process=True),
            Step("check", "jobs.check:check", ("curate", "label"), ends=True),
            Step("train", "jobs.train:fine_tune", ("label", "check"), own_process=True),
            *_SHIP,
        ),
        # A first model, from the expert alone.
        "clone": (
            Step("record", "jobs.record_base:record"),
            Step("train", "jobs.train:clone", ("record",), own_process=True),
            *_SHIP,
        ),
    }
)
