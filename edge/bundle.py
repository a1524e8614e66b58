"""The bundle that a vehicle installs: model.onnx and manifest.json in a stored zip; equal input, equal bytes."""

from __future__ import annotations

import errno
import hashlib
import io
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from edge.agent.bundles import MANIFEST, MODEL, BadBundle, unpack
from registry.backends import write_atomically
from registry.store import NOT_JSON, canonical_json
from streams.contracts.types import Count, Id, Name, NonNegative, Sha256, Text

if TYPE_CHECKING:
    # A vehicle reads bundles without the compiler's libraries.
    from edge.compile import Compiled

__all__ = ["BadBundle", "BundleManifest", "build_bundle", "open_bundle"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip can hold: members carry no time."""


class OutputParity(Struct, frozen=True):
    """Largest, 99th percentile and mean absolute difference from the checkpoint, in the output's unit."""

    largest: NonNegative
    p99: NonNegative
    mean: NonNegative


class BundleManifest(Struct, frozen=True):
    """What the bundle is, for the vehicle (the first three) and for people."""

    model_version: Name
    hardware: Id
    files: dict[Name, Sha256]
    """Member -> sha256, all but the manifest itself."""
    runtime: Name
    abi: Name
    kind: Name
    """fp32 or how it was quantised."""
    rig: dict[str, Any]
    """As model.rig.rig_from_dict reads it."""
    parity: dict[Name, OutputParity]
    """By output; "plan" is the driven trajectory, m."""
    same_choice: NonNegative
    """Share of samples where the most confident trajectory is the checkpoint's."""
    latency_ms_p50: NonNegative
    latency_ms_p99: NonNegative
    watts: NonNegative
    watts_source: Name
    watts_origin: Text
    rate_hz: NonNegative
    notes: list[Text]
    lineage: dict[Name, list[Name]] = {}
    """Kind -> ids."""
    evaluation: dict[Name, float] = {}
    bytes: Count = 0
    """Of the model."""


def build_bundle(
    compiled: Compiled,
    path: Path,
    *,
    model_version: str,
    rig: dict[str, Any],
    rate_hz: float = 36.0,
    lineage: dict[str, list[str]] | None = None,
    evaluation: dict[str, float] | None = None,
) -> BundleManifest:
    """Write the bundle of a compiled model and open it as a vehicle does. Raises BadBundle."""
    model = compiled.path.read_bytes()
    errors = {**compiled.chosen.parity.outputs, "plan": compiled.chosen.parity.plan_m}
    manifest = BundleManifest(
        model_version=model_version,
        hardware=compiled.hardware,
        files={MODEL: hashlib.sha256(model).hexdigest()},
        runtime=compiled.runtime,
        abi=compiled.abi,
        kind=compiled.kind,
        rig=rig,
        parity={name: OutputParity(e.largest, e.p99, e.mean) for name, e in errors.items()},
        same_choice=compiled.chosen.parity.same_choice,
        latency_ms_p50=compiled.chosen.latency.p50_ms,
        latency_ms_p99=compiled.chosen.latency.p99_ms,
        watts=compiled.watts.value,
        watts_source=compiled.watts.source,
        watts_origin=compiled.target,
        rate_hz=rate_hz,
        notes=list(compiled.reasons),
        lineage=lineage or {},
        evaluation=evaluation or {},
        bytes=len(model),
    )
    write_atomically(path, [pack({MODEL: model, MANIFEST: canonical_json(manifest)})])
    return open_bundle(path, compiled.hardware)


def open_bundle(path: Path, hardware: str) -> BundleManifest:
    """The manifest of a bundle, after every check that a vehicle makes before it installs one. Raises BadBundle
    for anything else than what build_bundle wrote."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "unpacked"
        try:
            _, hashes = unpack(path, into, hardware)
            members = {name: (into / name).read_bytes() for name in hashes}
            manifest = msgspec.json.decode(members[MANIFEST], type=BundleManifest)
        except FileNotFoundError as error:
            raise BadBundle(f"{path} does not exist") from error
        except BadBundle:
            raise
        except (*NOT_JSON, RuntimeError, ValueError, struct.error) as error:  # zipfile's, for odd headers
            raise BadBundle(f"{path.name} is not a bundle: {error}") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # an offset before the start of the file; others are the disk's
                raise
            raise BadBundle(f"{path.name} is not a whole zip archive: {error}") from error
        if pack(members) != path.read_bytes():
            raise BadBundle(f"{path.name} holds bytes beside its members: it was not written by build_bundle")
        return manifest


def pack(members: dict[str, bytes]) -> bytes:
    """A zip with stored members in the order of their names, without times or owners."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, members[name])
    return out.getvalue()
