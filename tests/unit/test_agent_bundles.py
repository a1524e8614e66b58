"""Bundles are opened with suspicion."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from pathlib import Path

import pytest

from edge.agent.bundles import BadBundle, unpack, verify
from tests.unit.vehicle_bundles import HARDWARE, bundle, zipped


def refused(path: Path, match: str, limit: int = 1 << 20) -> None:
    with pytest.raises(BadBundle, match=match):
        unpack(path, path.parent / "slot", HARDWARE, limit)


def test_a_good_bundle_is_unpacked_whole(tmp_path: Path) -> None:
    slot = tmp_path / "slot"
    manifest, files = unpack(bundle(tmp_path / "b.zip", model_version="m7"), slot, HARDWARE)
    assert manifest.model_version == "m7" and set(files) == {"model.onnx", "manifest.json"}
    assert (slot / "model.onnx").read_bytes() == b"model"
    assert verify(slot, files) == ""


def test_what_lay_in_the_slot_before_is_gone(tmp_path: Path) -> None:
    (tmp_path / "slot").mkdir()
    (tmp_path / "slot/old.so").write_bytes(b"x")
    _, files = unpack(bundle(tmp_path / "b.zip"), tmp_path / "slot", HARDWARE)
    assert verify(tmp_path / "slot", files) == ""


def test_a_member_that_is_not_the_manifests(tmp_path: Path) -> None:
    refused(bundle(tmp_path / "b.zip", files={"model.onnx": "0" * 64}), "model.onnx: sha256")


def test_for_other_hardware(tmp_path: Path) -> None:
    refused(bundle(tmp_path / "b.zip", hardware="orin"), "built for hardware 'orin', this is 'test-cpu'")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", ".hidden", "c:evil", "back\\slash"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "b.zip", {name: b"x"}), "not a plain file name")
    assert not (tmp_path / "evil").exists()


def test_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        info = zipfile.ZipInfo("model.onnx")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "b.zip", "not a plain file name")


def test_a_compressed_member(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "b.zip", {"model.onnx": b"0" * 10**6}, zipfile.ZIP_DEFLATED), "is compressed")


def test_too_large_too_many_or_doubled(tmp_path: Path) -> None:
    refused(bundle(tmp_path / "a.zip", b"x" * 5000), "at most 4000", limit=4000)
    refused(zipped(tmp_path / "b.zip", {f"f{i}": b"" for i in range(70)}), "70 members")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model.onnx", b"one")
        archive.writestr("model.onnx", b"two")
    refused(tmp_path / "c.zip", "2 members, 1 names")


def test_manifest_missing_malformed_or_about_other_members(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "a.zip", {"model.onnx": b"x"}), "no manifest.json")
    refused(zipped(tmp_path / "b.zip", {"model.onnx": b"x", "manifest.json": b"{"}), "manifest.json: ")
    refused(bundle(tmp_path / "c.zip", files={}), "are not the manifest's")
    text = json.dumps({"model_version": "m", "hardware": HARDWARE, "files": {}}).encode()
    refused(zipped(tmp_path / "d.zip", {"manifest.json": text}), "with model.onnx")


def test_not_a_whole_archive(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b.zip", b"x" * 3000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "not a whole zip")
    at = data.index(b"xxx") + 5
    path.write_bytes(data[:at] + b"y" + data[at + 1 :])
    refused(path, "not a whole zip")


def test_a_directory_that_was_tampered_with(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b.zip")
    data = path.read_bytes()
    offset, flags = data.rindex(b"PK\x05\x06") + 16, data.rindex(b"PK\x01\x02") + 8
    beyond = (len(data) * 2).to_bytes(4, "little")
    path.write_bytes(data[:offset] + beyond + data[offset + 4 :])
    refused(path, "not a whole zip")
    path.write_bytes(data[:flags] + bytes([data[flags] | 1]) + data[flags + 1 :])
    refused(path, "not a whole zip.*encrypted")


def test_no_flipped_bit_of_a_bundle_raises_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them are slow
    path = bundle(tmp_path / "b.zip")
    data = path.read_bytes()
    outcomes = set()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        try:
            unpack(path, tmp_path / "slot", HARDWARE)
        except BadBundle:
            outcomes.add("refused")
        else:
            outcomes.add("harmless")
            assert (tmp_path / "slot/model.onnx").read_bytes() == b"model"
    assert outcomes == {"refused", "harmless"}


def test_a_full_disk_is_no_bad_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        unpack(bundle(tmp_path / "b.zip"), tmp_path / "slot", HARDWARE)


def test_verify_finds_changed_missing_and_added_files(tmp_path: Path) -> None:
    slot = tmp_path / "slot"
    _, files = unpack(bundle(tmp_path / "b.zip"), slot, HARDWARE)
    (slot / "extra").write_bytes(b"")
    assert "holds" in verify(slot, files)
    (slot / "extra").unlink()
    (slot / "model.onnx").write_bytes(b"modeL")
    assert verify(slot, files) == "model.onnx is not what was installed"
    (slot / "model.onnx").unlink()
    assert "holds" in verify(slot, files)
    assert "holds []" in verify(tmp_path / "none", files)
