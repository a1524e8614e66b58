"""Compilation: what is shipped, why, and that no figure is made up."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import edge.compile
import edge.quantize
from edge.bundle import BadBundle, BundleManifest, build_bundle, open_bundle, pack
from edge.compile import Candidate, CannotCompile, Compiled, Latency, compile_model, decide, patch_px
from edge.give_back import give_back
from edge.quantize import WAYS, OutputError, Parity, Way, fold, open_session, outputs_of, parity, weighted
from edge.work import Feeds, count_work
from tests.unit.small_graph import MODES, PATCH_PX, PIXELS, WIDTH, save, small_graph, some_feeds


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_graph(), tmp_path_factory.mktemp("graph") / "checkpoint.onnx")


@pytest.fixture(scope="module")
def compiled(source: Path) -> Compiled:
    return compile_model(source, some_feeds(), source.with_name("model.onnx"), runs=20)


def test_all_ways_are_tried_and_the_choice_is_explained(compiled: Compiled) -> None:
    assert set(compiled.candidates) == {"fp32", *WAYS}
    assert compiled.kind == "int8-weights"
    for kind in compiled.candidates:
        assert sum(reason.startswith(f"{kind}: ") for reason in compiled.reasons) == 1
    largest, p99 = compiled.chosen.parity.plan_m.largest, compiled.chosen.parity.plan_m.p99
    assert f"at most {largest:.3f} m (p99 {p99:.3f} m) on 12 unseen samples" in compiled.reasons[0]
    assert any("tensorrt: not built by this version" in reason for reason in compiled.reasons)
    assert compiled.chosen.bytes < compiled.candidates["fp32"].bytes / 2
    assert compiled.watts.source in ("measured", "modelled")


def test_what_is_shipped_computes_what_the_report_says(source: Path, compiled: Compiled) -> None:
    samples = [s for n, s in enumerate(some_feeds()) if n % edge.compile.SEEN_EVERY]
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


def test_int8_that_moves_the_plan_too_far_is_not_shipped(source: Path, tmp_path: Path) -> None:
    compiled = compile_model(source, some_feeds(), tmp_path / "model.onnx", bound_m=1e-5, runs=5)
    assert compiled.kind == "fp32"
    assert sum("moves a waypoint" in reason for reason in compiled.reasons) == len(WAYS)
    assert compiled.chosen.parity.plan_m.largest < 1e-5


def test_what_moves_the_plan_too_far_is_given_back(tmp_path: Path) -> None:
    source = save(small_graph(gain=10.0), tmp_path / "wild.onnx")
    compiled = compile_model(source, some_feeds(), tmp_path / "model.onnx", ways=["int8-weights"])
    whole = WAYS["int8-weights"].build(fold(onnx.load(str(source))), [], ())
    too_far = parity(*(outputs_of(open_session(g), some_feeds()) for g in (onnx.load(str(source)), whole)))
    assert too_far.plan_m.largest > 3 * edge.compile.SEARCH_BOUND * edge.compile.TRAJECTORY_BOUND_M
    assert compiled.kind == "int8-weights"
    assert {"draw"} <= set(compiled.chosen.kept) < set(weighted(onnx.load(str(source))))
    assert f"{len(compiled.chosen.kept)} nodes kept in fp32" in compiled.reasons[0]
    assert compiled.chosen.parity.plan_m.largest < 0.6 * too_far.plan_m.largest
    assert whole.ByteSize() < compiled.chosen.bytes < compiled.candidates["fp32"].bytes


def test_samples_that_a_graph_is_made_from_do_not_judge_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, calibrated = some_feeds(32), list[int]()

    def build(model: onnx.ModelProto, seen: Sequence[Feeds], kept: Collection[str]) -> onnx.ModelProto:
        calibrated.extend(id(s) for s in seen)
        return WAYS["int8-weights"].build(model, seen, kept)

    monkeypatch.setitem(edge.quantize.WAYS, "int8-static", Way(build, "int8"))
    compiled = compile_model(source, samples, tmp_path / "model.onnx", ways=["int8-static"], runs=5)
    made_from = [n for n, s in enumerate(samples) if id(s) in calibrated]
    others = [s for n, s in enumerate(samples) if n not in made_from]
    assert len(made_from) == 8
    graphs = (onnx.load(str(source)), WAYS["int8-weights"].build(fold(onnx.load(str(source))), [], ()))
    judged = parity(*(outputs_of(open_session(g), others) for g in graphs)).plan_m
    assert compiled.candidates["int8-static"].parity.plan_m == judged


def in_the_dark(sample: Feeds) -> Feeds:
    return {**sample, "images": np.asarray(sample["images"], np.uint8) // 64}


def test_a_way_that_fails_is_reported_and_fp32_still_ships(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> onnx.ModelProto:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(edge.quantize.WAYS, "int8-static", Way(broken, "int8"))
    compiled = compile_model(source, some_feeds(), tmp_path / "model.onnx", ways=["int8-static"], runs=5)
    assert compiled.kind == "fp32"
    assert any("no such kernel" in reason for reason in compiled.reasons)


def test_static_quantisation_sees_the_samples() -> None:
    folded, narrow = fold(small_graph()), some_feeds(8, seed=1)
    dark = [in_the_dark(f) for f in narrow]
    original = outputs_of(open_session(small_graph()), narrow)
    graphs = [WAYS["int8-static"].build(folded, samples, ()) for samples in (narrow, dark)]
    errors = [parity(original, outputs_of(open_session(graph), narrow)).plan_m.largest for graph in graphs]
    assert errors[1] > 2 * errors[0]


def test_matrices_worth_it_are_weighted() -> None:
    assert weighted(small_graph()) == ["see", "think", "draw"]


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


@pytest.mark.parametrize("way", WAYS)
def test_a_node_that_is_kept_keeps_its_numbers(way: str) -> None:
    plain, samples = fold(small_graph()), some_feeds(8)
    made = WAYS[way].build(plain, samples, {"think"})
    assert_array_equal(initializers(made)["w_hidden"], initializers(plain)["w_hidden"])
    floats = {name for name, a in initializers(made).items() if a.dtype == np.float32 and a.size >= 1024}
    assert floats == {"w_hidden"}
    everything = WAYS[way].build(plain, samples, set(weighted(plain)))
    found, expected = (outputs_of(open_session(g), samples)[0]["modes"] for g in (everything, plain))
    assert_array_equal(found, expected)


def test_weights_of_every_operator_are_rounded_by_output() -> None:
    rng = np.random.default_rng(0)
    shapes = {"w_conv": (16, 3, 6, 6), "w_gemm": (32, 64), "w_gemm_t": (64, 32), "w_product": (32, 64)}
    arrays = {n: (rng.normal(1, 1, s)).astype(np.float32) for n, s in shapes.items()}
    arrays["w_product"][:, 5] *= 1000
    nodes = [
        helper.make_node("Conv", ["x", "w_conv"], ["c"], "conv"),
        helper.make_node("Gemm", ["row", "w_gemm"], ["g"], "gemm"),
        helper.make_node("Gemm", ["row", "w_gemm_t"], ["t"], "gemm_t", transB=1),
        helper.make_node("MatMul", ["row", "w_product"], ["p"], "product"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 3, 6, 6]), value("row", TensorProto.FLOAT, [1, 32])],
        [value(n, TensorProto.FLOAT, None) for n in "cgtp"],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    found = initializers(WAYS["int8-weights"].build(model, [], ()))
    outputs = {"w_conv": (1, 2, 3), "w_gemm": (0,), "w_gemm_t": (1,), "w_product": (0,)}
    for name, others in outputs.items():
        scale, steps = found[f"{name}_scale"], found[f"{name}_int8"]
        assert steps.dtype == np.int8
        assert_array_equal(np.abs(steps.astype(int)).max(others), 127)
        error = steps * scale - arrays[name]
        assert (np.abs(error) <= 1.001 * scale).all()
        assert (np.abs(error.sum(others, keepdims=True)) <= 0.502 * scale).all()
    assert open_session(WAYS["int8-weights"].build(model, [], ())).run(
        None, {"x": np.ones((1, 3, 6, 6), np.float32), "row": np.ones((1, 32), np.float32)}
    )[0].ravel() == pytest.approx(arrays["w_conv"].sum((1, 2, 3)), abs=0.05)


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
    moved = float(np.hypot(0.25, 0.25))
    assert found.plan_m == OutputError(moved, moved, moved)
    assert found.same_choice == 0.0
    assert found.outputs["confidence"].largest == pytest.approx(0.5)
    with pytest.raises(ValueError, match="cannot be compared"):
        parity([], [])


def candidate(kind: str, error_m: float, p50_ms: float, size: int) -> Candidate:
    error = OutputError(error_m, error_m, error_m)
    latency = Latency(p50_ms, p50_ms, 10, p50_ms / FP32[2])
    return Candidate(kind, Parity({"modes": error}, error, 1.0, 8), latency, size)


FP32 = ("fp32", 0.0, 2.0, 100)


@pytest.mark.parametrize(
    ("candidates", "kind", "reason"),
    [
        ([FP32, ("w", 0.1, 2.0, 30)], "w", "fp32: 100 bytes and no faster than w of 30"),
        ([FP32, ("w", 0.1, 2.19, 30)], "w", "w: ships; moves a waypoint by at most 0.100 m (p99 0.100 m)"),
        ([FP32, ("w", 0.1, 2.22, 30)], "fp32", "w: takes 1.11 times as long as fp32; at most 1.1"),
        ([FP32, ("w", 0.26, 1.0, 30)], "fp32", "w: moves a waypoint by 0.260 m; at most 0.25 m"),
        ([FP32, ("w", float("nan"), 1.0, 30)], "fp32", "w: moves a waypoint by nan"),
        ([FP32, ("w", 0.1, 2.0, 110)], "fp32", "w: 110 bytes and no faster than fp32 of 100"),
        ([FP32, ("w", 0.1, 1.0, 110)], "w", "fp32: takes 2.00 times as long as w"),
        ([FP32, ("w", 0.1, 2.0, 30), ("d", 0.1, 1.7, 40)], "w", "d: 40 bytes and no faster than w of 30"),
        ([FP32, ("w", 0.1, 2.0, 30), ("d", 0.1, 1.5, 40)], "d", "w: takes 1.33 times as long as d"),
        ([FP32, ("w", 0.1, 2.0, 30), ("d", 0.3, 1.5, 40)], "w", "d: moves a waypoint"),
        # What computes as fp32 does is as fast, whatever a busy machine measured.
        ([FP32, ("int8-weights", 0.1, 9.0, 30)], "int8-weights", "int8-weights: ships"),
        ([FP32, ("int8-weights", 0.1, 0.5, 110)], "fp32", "int8-weights: 110 bytes and no faster"),
        (
            [FP32, ("int8-weights", 0.1, 2.0, 30), ("d", 0.1, 1.0, 40)],
            "d",
            "int8-weights: takes 2.00 times as long",
        ),
        ([FP32], "fp32", "fp32: ships; 2.00 ms, 100 bytes"),
    ],
)
def test_the_decision(candidates: list[tuple[str, float, float, int]], kind: str, reason: str) -> None:
    chosen, reasons = decide({c[0]: candidate(*c) for c in candidates}, 0.25)
    assert chosen == kind
    assert any(r.startswith(reason) for r in reasons), reasons
    assert sorted(r.partition(":")[0] for r in reasons) == sorted(c[0] for c in candidates)


# Giving back


NODES = [f"n{i}" for i in range(40)]


class Graphs:
    """Graphs that are known by what they keep; each node adds its error when it is quantised."""

    def __init__(self, errors: dict[str, float]) -> None:
        self.errors, self.built = errors, 0

    def build(self, kept: frozenset[str]) -> frozenset[str]:
        self.built += 1
        return kept

    def error(self, kept: frozenset[str]) -> float:
        return sum(e for n, e in self.errors.items() if n not in kept)


def test_nothing_is_given_back_where_everything_holds() -> None:
    graphs = Graphs(dict.fromkeys(NODES, 0.01))
    assert give_back(graphs.build, NODES, graphs.error, 0.5) == (frozenset(), frozenset())
    assert graphs.built == 1


@given(st.permutations(range(30)), st.floats(0.1, 460))
def test_the_fewest_of_the_worst_are_given_back(order: list[int], bound: float) -> None:
    graphs = Graphs({NODES[i]: float(weight) for i, weight in enumerate(order)})
    found = give_back(graphs.build, NODES[:30], graphs.error, bound)
    assert graphs.built <= 2 + 30 + math.log2(30)
    assert found is not None
    kept = found[1]
    assert graphs.error(kept) <= bound
    least = min((graphs.errors[n] for n in kept), default=0)
    assert graphs.error(kept) + least > bound or not kept
    assert all(graphs.errors[n] <= least for n in set(NODES[:30]) - kept) or not kept


def test_many_nodes_are_given_back_by_groups_of_neighbours() -> None:
    graphs = Graphs(dict.fromkeys(NODES, 0.0) | {"n17": 1.0})
    assert give_back(graphs.build, NODES, graphs.error, 0.5, trials=10) is not None
    assert graphs.built <= 2 + 10 + math.log2(10)
    found = give_back(graphs.build, NODES, graphs.error, 0.5, trials=10)
    assert found == (frozenset(NODES[16:20]), frozenset(NODES[16:20]))


@pytest.mark.parametrize("error", [1.0, float("nan"), float("inf")])
def test_where_nothing_holds_nothing_is_found(error: float) -> None:
    assert give_back(lambda kept: kept, NODES, lambda _: error, 0.5) is None
    assert give_back(lambda kept: kept, [], lambda _: error, 0.5) is None


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
    assert manifest.kind == "int8-weights"
    assert manifest.notes[0].startswith("int8-weights: ships; moves a waypoint by at most")
    assert manifest.parity["plan"].p99 == compiled.chosen.parity.plan_m.p99
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
