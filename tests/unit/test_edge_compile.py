"""Compilation: what is shipped, why, and that no figure is made up."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import edge.compile
import edge.quantize
from edge.bundle import BadBundle, BundleManifest, build_bundle, open_bundle, pack
from edge.compile import Candidate, CannotCompile, Compiled, Latency, compile_model, decide, patch_px
from edge.quantize import WAYS, OutputError, Parity, fold, last_products, open_session, outputs_of, parity
from edge.work import count_work
from tests.unit.small_graph import MODES, PATCH_PX, PIXELS, WIDTH, save, small_graph, some_feeds


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_graph(), tmp_path_factory.mktemp("graph") / "checkpoint.onnx")


@pytest.fixture(scope="module")
def compiled(source: Path) -> Compiled:
    return compile_model(source, some_feeds(), source.with_name("model.onnx"), runs=20)


def test_all_ways_are_tried_and_the_choice_is_explained(compiled: Compiled) -> None:
    assert set(compiled.candidates) == {"fp32", *WAYS}
    assert compiled.kind == "int8-dynamic"
    for kind in set(compiled.candidates) - {compiled.kind}:
        assert any(reason.startswith(kind) for reason in compiled.reasons)
    assert any("tensorrt: not built by this version" in reason for reason in compiled.reasons)
    assert compiled.chosen.bytes < compiled.candidates["fp32"].bytes / 2
    assert compiled.watts.source in ("measured", "modelled")


def test_what_is_shipped_computes_what_the_report_says(source: Path, compiled: Compiled) -> None:
    samples = some_feeds()
    shipped = open_session(onnx.load(str(compiled.path)))
    again = parity(outputs_of(open_session(onnx.load(str(source))), samples), outputs_of(shipped, samples))
    assert again == compiled.chosen.parity
    assert 0 < again.plan_m.largest < edge.compile.TRAJECTORY_BOUND_M
    assert set(again.outputs) == {"modes", "confidence", "scale", "embedding"}
    assert shipped.get_modelmeta().custom_metadata_map["patch_px"] == str(PATCH_PX)


def test_the_shipped_graph_takes_any_number_of_vehicles(compiled: Compiled) -> None:
    session = open_session(onnx.load(str(compiled.path)))
    one = some_feeds(3)
    batch = {k: np.concatenate([f[k] for f in one]) if k != "rays" else one[0][k] for k in one[0]}
    assert session.run(["modes"], batch)[0].shape == (3, MODES, 8, 2)


def test_int8_that_moves_the_plan_too_far_is_not_shipped(tmp_path: Path) -> None:
    source = save(small_graph(gain=50.0), tmp_path / "wild.onnx")
    compiled = compile_model(source, some_feeds(), tmp_path / "model.onnx", runs=5)
    assert compiled.kind == "fp32"
    assert sum("moves a waypoint" in reason for reason in compiled.reasons) == len(WAYS)
    assert compiled.chosen.parity.plan_m.largest < edge.compile.FOLD_BOUND


def test_a_way_that_fails_is_reported_and_fp32_still_ships(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> onnx.ModelProto:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(edge.quantize.WAYS, "int8-static", broken)
    compiled = compile_model(source, some_feeds(), tmp_path / "model.onnx", ways=["int8-static"], runs=5)
    assert compiled.kind == "fp32"
    assert any("no such kernel" in reason for reason in compiled.reasons)


def test_static_quantisation_sees_the_samples() -> None:
    folded, narrow = fold(small_graph()), some_feeds(8, seed=1)
    dark = [{**f, "images": f["images"] // 64} for f in narrow]
    original = outputs_of(open_session(small_graph()), narrow)
    errors = [
        parity(original, outputs_of(open_session(WAYS["int8-static"](folded, samples)), narrow)).plan_m.mean
        for samples in (narrow, dark)
    ]
    assert errors[1] > 2 * errors[0]


def test_the_heads_are_the_last_products_before_the_outputs() -> None:
    assert last_products(small_graph()) == ["draw", "judge", "think"]


def test_folding_keeps_the_numbers_and_drops_constants() -> None:
    model, samples = small_graph(), some_feeds(8)
    model.graph.node.append(helper.make_node("Add", ["half", "half"], ["unused"], "unused"))
    folded = fold(model)
    assert len(folded.graph.node) < len(model.graph.node)
    assert (
        parity(outputs_of(open_session(model), samples), outputs_of(open_session(folded), samples)).plan_m.largest
        < 1e-5
    )


def test_parity_follows_the_choice_of_the_original() -> None:
    modes = np.zeros((1, 2, 8, 2), np.float32)
    modes[0, 1] += 5
    original: dict[str, NDArray[np.generic]] = {"modes": modes, "confidence": np.array([[0.9, 0.1]])}
    other: dict[str, NDArray[np.generic]] = {"modes": modes + 0.25, "confidence": np.array([[0.4, 0.6]])}
    found = parity([original], [other])
    assert found.plan_m == OutputError(0.25, 0.25, 0.25)
    assert found.same_choice == 0.0
    assert found.outputs["confidence"].largest == pytest.approx(0.5)
    with pytest.raises(ValueError, match="cannot be compared"):
        parity([], [])


def candidate(kind: str, error_m: float, p50_ms: float) -> Candidate:
    error = OutputError(error_m, error_m, error_m)
    return Candidate(kind, Parity({"modes": error}, error, 1.0, 8), Latency(p50_ms, p50_ms, 10), 1)


@pytest.mark.parametrize(
    ("candidates", "kind", "reason"),
    [
        ([("fp32", 0, 2.0), ("int8-dynamic", 0.1, 1.0)], "int8-dynamic", "fp32: int8-dynamic holds the bound"),
        ([("fp32", 0, 1.0), ("int8-dynamic", 0.1, 9.0)], "int8-dynamic", "fp32: int8-dynamic holds the bound"),
        (
            [("fp32", 0, 1.0), ("int8-dynamic", 0.1, 1.2), ("int8-static", 0.3, 1.0)],
            "int8-dynamic",
            "fp32: int8-dynamic is as fast",
        ),
        (
            [("fp32", 0, 1.0), ("int8-dynamic", 0.1, 1.6), ("int8-static", 0.3, 1.0)],
            "fp32",
            "int8-dynamic: 1.60 ms",
        ),
        ([("fp32", 0, 2.0), ("int8-dynamic", 0.3, 1.0)], "fp32", "moves a waypoint by 0.300 m; at most 0.25 m"),
        (
            [("fp32", 0, 2.0), ("int8-dynamic", 0.1, 2.0), ("int8-static", 0.1, 1.0)],
            "int8-static",
            "int8-dynamic: 2.00",
        ),
        ([("fp32", 0, 2.0), ("int8-dynamic", float("nan"), 1.0)], "fp32", "moves a waypoint by nan"),
        ([("fp32", 0, 2.0)], "fp32", ""),
    ],
)
def test_the_decision(candidates: list[tuple[str, float, float]], kind: str, reason: str) -> None:
    chosen, reasons = decide({k: candidate(k, e, ms) for k, e, ms in candidates}, 0.25)
    assert chosen == kind
    assert any(reason in r for r in reasons) or not reason
    assert len(reasons) == len(candidates) - 1


def test_what_cannot_be_compiled_says_why(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(CannotCompile, match="3 samples"):
        compile_model(source, some_feeds(3), out)
    with pytest.raises(CannotCompile, match="'toaster' is not declared"):
        compile_model(source, some_feeds(), out, hardware="toaster")
    with pytest.raises(CannotCompile, match=r"missing\.onnx"):
        compile_model(tmp_path / "missing.onnx", some_feeds(), out)
    (tmp_path / "noise.onnx").write_bytes(b"\x08\xff not onnx")
    with pytest.raises(CannotCompile, match=r"noise\.onnx"):
        compile_model(tmp_path / "noise.onnx", some_feeds(), out)
    assert not out.exists()


def test_the_patch_size_comes_from_the_metadata_or_the_shapes(source: Path, tmp_path: Path) -> None:
    assert patch_px(source) == PATCH_PX
    assert patch_px(save(small_graph(metadata=False), tmp_path / "plain.onnx")) == PATCH_PX
    odd = small_graph(metadata=False)
    odd.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 3
    with pytest.raises(CannotCompile, match="do not tile"):
        patch_px(save(odd, tmp_path / "odd.onnx"))
    odd.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "P"
    with pytest.raises(CannotCompile, match="metadata_props"):
        patch_px(save(odd, tmp_path / "open.onnx"))


def test_work_is_counted_by_hand() -> None:
    work = count_work(small_graph(), some_feeds(1)[0])
    products = PIXELS * WIDTH + 6 * WIDTH + WIDTH * WIDTH + WIDTH * MODES * 16 + WIDTH * MODES
    assert work.operations == 2 * products
    assert work.activations == (PIXELS + WIDTH) + (6 + WIDTH) + 2 * WIDTH + (WIDTH + MODES * 16) + (WIDTH + MODES)
    assert work.kernels == 21


def test_work_of_convolutions_and_gemm() -> None:
    rng = np.random.default_rng(0)
    kernel, matrix = rng.normal(size=(4, 3, 2, 2)).astype(np.float32), rng.normal(size=(5, 36)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 5])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    work = count_work(model, {"x": np.zeros((1, 3, 4, 4), np.float32)})
    assert work.operations == 2 * (36 * 12) + 2 * (5 * 36)
    assert work.weights == kernel.size + matrix.size


# Bundles


def bundle(compiled: Compiled, path: Path) -> BundleManifest:
    return build_bundle(
        compiled,
        path,
        model_version="driver-1",
        rig={"name": "two", "cameras": []},
        lineage={"run": ["r1"]},
        evaluation={"rate_per_km": 3.9},
    )


def test_a_bundle_says_what_it_is(compiled: Compiled, tmp_path: Path) -> None:
    manifest = bundle(compiled, tmp_path / "b.zip")
    assert manifest == open_bundle(tmp_path / "b.zip", "cpu-x86-64")
    assert manifest.kind == "int8-dynamic"
    assert manifest.parity["plan"].largest == compiled.chosen.parity.plan_m.largest
    assert (manifest.watts, manifest.watts_source) == (compiled.watts.value, compiled.watts.source)
    assert manifest.lineage == {"run": ["r1"]}
    assert manifest.bytes == compiled.path.stat().st_size


def test_the_same_bundle_has_the_same_bytes(compiled: Compiled, tmp_path: Path) -> None:
    bundle(compiled, tmp_path / "one.zip")
    time.sleep(0.01)
    bundle(compiled, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_changed_bundle_is_refused_wherever_it_is_changed(compiled: Compiled, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    bundle(compiled, path)
    data = path.read_bytes()
    for at in {*range(60), *range(0, len(data), 9973), *range(len(data) - 200, len(data), 2)}:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        with pytest.raises(BadBundle):
            open_bundle(path, "cpu-x86-64")
    for cut in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:cut])
        with pytest.raises(BadBundle):
            open_bundle(path, "cpu-x86-64")


def test_a_bundle_of_other_members_or_hardware_is_refused(compiled: Compiled, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    bundle(compiled, path)
    with pytest.raises(BadBundle, match="orin"):
        open_bundle(path, "orin-agx-64")
    with pytest.raises(BadBundle, match="does not exist"):
        open_bundle(tmp_path / "nothing.zip", "cpu-x86-64")
    for name in ("../up.onnx", "/etc/passwd", "model.onnx\\x", "extra.bin"):
        path.write_bytes(pack({"model.onnx": b"m", "manifest.json": b"{}", name: b"x"}))
        with pytest.raises(BadBundle):
            open_bundle(path, "cpu-x86-64")
