"""From a registered model to a signed release."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import msgspec

from edge import compile as compiler
from edge.bundle import build_bundle
from jobs.documents import Compiled, Json, Registered, Signed
from jobs.naming import GRAPH, figures, link, made_from
from jobs.step import Work
from model.rig import THREE_CAMERAS
from registry.lineage import Kind, Node
from registry.releases import ReleaseCard, Releases


def sign(work: Work) -> Signed:
    """The step: the bundle, signed and published; a fingerprint has one release, however often this is called."""
    places, settings = work.context.places, work.context.settings
    compiled, version = work.input("compile", Compiled), work.input("register", Registered).model_version
    releases = Releases(Path(places.releases), Path(places.keys))
    releases.create(work.now_ns)
    card = ReleaseCard(
        fingerprint=work.fingerprint,
        hardware=settings.hardware,
        model_version=version,
        lineage=made_from(work),
        evaluation=figures(work),
        watts=compiled.watts,
        watts_source=compiled.watts_source,
    )
    release = releases.publish(_bundle(work, compiled, version), card, work.now_ns).release
    model, bundle = Node(Kind.MODEL, version), Node(Kind.BUNDLE, release.sha256)
    link(work, [(model, bundle), (bundle, Node(Kind.RELEASE, str(release.version)))])
    return Signed(release)


def _bundle(work: Work, compiled: Compiled, version: str) -> Path:
    """Equal documents, equal bytes."""
    path = work.scratch / "bundle.zip"
    build_bundle(
        _with_path(compiled.details, work.store.get_file(compiled.graph, work.scratch / GRAPH)),
        path,
        model_version=version,
        rig=asdict(THREE_CAMERAS),
        lineage=made_from(work),
        evaluation=figures(work),
    )
    return path


def _with_path(details: Json, path: Path) -> compiler.Compiled:
    made = msgspec.convert(details, compiler.Compiled, dec_hook=lambda kind, text: kind(text))
    return replace(made, path=path)
