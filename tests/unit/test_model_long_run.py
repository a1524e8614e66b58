"""A long run: the same bits however often it is stopped, and never a step from a loss that is not finite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.checkpoint import BadCheckpoint, Checkpoint, from_bytes, to_bytes
from model.config import BadConfig, Gaps, TrainingConfig
from model.data import BadSamples, Mixture, Samples, balanced
from model.gradients import parted
from model.labels import MOTION, TAGS
from model.long_run import MOST_ROLLBACKS, MOST_SKIPPED, Course, Draw, Interrupted, Step, Watch, train_long
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.run_folder import from_checkpoint, read_manifest
from model.shards import read_shard, write
from model.stream_data import Order, Stream
from model.training import CannotResume, NonFiniteLoss, initial, train
from registry.backends import LocalBackend
from tests.unit.model_samples import some_samples

NETWORK = quick().network
CONFIG = TrainingConfig(steps=12, batch=8, warmup_steps=2, camera_dropout=0.3, keep_every=4, parts=2)
COURSE = Course(NETWORK, CONFIG, THREE_CAMERAS, "data", seed=1)
SAMPLES = some_samples(120)
NOBODY = Watch()


def draw(number: int) -> list[Samples]:
    """Batch k is frames 8k to 8k + 8."""
    rows = np.arange(8 * number, 8 * number + 8) % len(SAMPLES)
    return parted(SAMPLES.take(rows), CONFIG.parts)


def trained(folder: Path, course: Course = COURSE, batches: Draw = draw, watch: Watch = NOBODY) -> Checkpoint:
    end = train_long(course, batches, folder, watch=watch)
    assert end is not None
    return end


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An uninterrupted run's model."""
    return to_bytes(trained(tmp_path_factory.mktemp("whole")))


def stop_after(step: int) -> tuple[list[Step], Watch]:
    steps: list[Step] = []
    return steps, Watch(step=steps.append, stop=lambda: len(steps) + 1 >= step)


def test_it_learns_and_tells(tmp_path: Path) -> None:
    course = replace(COURSE, config=replace(CONFIG, steps=60, keep_every=100))
    steps: list[Step] = []
    trained(tmp_path, course, watch=Watch(step=steps.append))
    assert [s.done for s in steps] == list(range(1, 61))
    assert np.mean([s.loss for s in steps[-10:]]) < np.mean([s.loss for s in steps[:10]])
    assert all(s.applied and s.gradient > 0 for s in steps)


@pytest.mark.parametrize("stops", [(3,), (4,), (1, 7), (2, 1, 1, 5)])
def test_stopped_and_resumed_it_is_the_uninterrupted_run_bit_for_bit(
    stops: tuple[int, ...], whole: bytes, tmp_path: Path
) -> None:
    for after in stops:
        steps, watch = stop_after(after)
        with pytest.raises(Interrupted, match="the same command goes on"):
            trained(tmp_path, watch=watch)
        assert len(steps) == after
    assert to_bytes(trained(tmp_path)) == whole


def test_killed_between_checkpoints_it_goes_on_from_the_last_one(whole: bytes, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(step: Step) -> None:
        if step.done == 6:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, watch=Watch(step=die))
    steps: list[Step] = []
    assert to_bytes(trained(tmp_path, watch=Watch(step=steps.append))) == whole
    assert steps[0].done == 5


def test_a_damaged_last_checkpoint_costs_steps_and_nothing_else(whole: bytes, tmp_path: Path) -> None:
    _, watch = stop_after(9)
    with pytest.raises(Interrupted):
        trained(tmp_path, watch=watch)
    newest = max(tmp_path.glob("step-*"))
    next(newest.glob("*.safetensors")).write_bytes(b"half")
    told: list[str] = []
    assert to_bytes(trained(tmp_path, watch=Watch(told=told.append))) == whole
    assert "step-00000009" in told[0]
    assert "going on from" in told[1]


def test_a_finished_run_is_only_read(whole: bytes, tmp_path: Path) -> None:
    trained(tmp_path)
    steps: list[Step] = []
    assert to_bytes(trained(tmp_path, watch=Watch(step=steps.append))) == whole
    assert not steps


def test_the_number_of_threads_and_checkpoints_changes_nothing(whole: bytes, tmp_path: Path) -> None:
    course = replace(COURSE, config=replace(CONFIG, threads=1, keep_every=5))
    assert to_bytes(trained(tmp_path, course)) == whole


def test_it_takes_the_steps_that_plain_training_takes(tmp_path: Path) -> None:
    """Of the same batches: only how these are made differs."""
    config = replace(CONFIG, camera_dropout=0.0)
    mixture = Mixture((balanced(SAMPLES, config.balance),), (1.0,), config.batch, 1)
    course = replace(COURSE, config=config)
    end = trained(tmp_path, course, lambda number: parted(mixture.draw(number), config.parts))
    assert to_bytes(end) == to_bytes(train(SAMPLES, THREE_CAMERAS, NETWORK, config, seed=1))


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_activations_change_no_bit(whole: bytes, recompute: bool, tmp_path: Path) -> None:
    assert to_bytes(trained(tmp_path, replace(COURSE, config=replace(CONFIG, recompute=recompute)))) == whole


def spoilt(bad: Callable[[int], bool]) -> Draw:
    """Batches whose targets are out of all bounds for some numbers."""

    def some(number: int) -> list[Samples]:
        parts = draw(number)
        return [replace(p, target=np.full_like(p.target, 3e38)) for p in parts] if bad(number) else parts

    return some


def test_a_step_that_is_not_finite_is_skipped_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    steps: list[Step] = []
    end = trained(
        tmp_path, batches=spoilt(lambda n: n in (3, 6)), watch=Watch(step=steps.append, told=told.append)
    )
    assert [s.done for s in steps if not s.applied] == [4, 7]
    assert "step 4 of 12" in told[0]
    assert "skipped, the weights stay as they were" in told[0]
    assert read_manifest(max(tmp_path.glob("step-*"))).standing.applied == 10
    assert all(bool(t.isfinite().all()) for t in end.weights.values())


def test_skipped_steps_resume_to_the_same_bits(tmp_path: Path) -> None:
    batches = spoilt(lambda n: n in (3, 6))
    whole = to_bytes(trained(tmp_path / "whole", batches=batches))
    for after in (4, 3):
        _, watch = stop_after(after)
        with pytest.raises(Interrupted):
            trained(tmp_path / "parts", batches=batches, watch=watch)
    assert to_bytes(trained(tmp_path / "parts", batches=batches)) == whole


def test_after_several_in_a_row_it_goes_back_and_passes_over_what_it_saw(tmp_path: Path) -> None:
    told: list[str] = []
    seen: list[int] = []
    bad = spoilt(lambda n: 5 <= n < 5 + MOST_SKIPPED)

    def batches(number: int) -> list[Samples]:
        seen.append(number)
        return bad(number)

    whole = trained(tmp_path / "whole", batches=batches, watch=Watch(told=told.append))
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7, *range(8, 16)]
    assert "back to" in told[-1]
    assert "step-00000004" in told[-1]
    standing = read_manifest(max((tmp_path / "whole").glob("step-*"))).standing
    assert (standing.step, standing.applied, standing.shift, standing.rollbacks) == (12, 12, 4, 1)
    for after in (7, 2):
        _, watch = stop_after(after)
        with pytest.raises(Interrupted):
            trained(tmp_path / "parts", batches=bad, watch=watch)
    assert to_bytes(trained(tmp_path / "parts", batches=bad)) == to_bytes(whole)


def test_when_that_is_of_no_use_it_ends_and_says_where_the_last_good_state_is(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"not finite 3 times in a row.*peak_rate.*step-00000004"):
        trained(tmp_path, batches=spoilt(lambda n: n >= 6))
    standing = read_manifest(max(tmp_path.glob("step-*"))).standing
    assert standing.rollbacks == MOST_ROLLBACKS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 2}, "seed was 1, is 2"),
        ({"data": "other"}, "data was 'data', is 'other'"),
        ({"config": replace(CONFIG, steps=13)}, "training.steps was 12, is 13"),
        ({"network": replace(NETWORK, modes=4)}, "network.modes was 3, is 4"),
        ({"start": initial(NETWORK, 9)}, "start was ''"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_gone_on_from(
    change: dict[str, object], said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = _three_steps(tmp_path_factory)
    with pytest.raises(CannotResume, match=f"{said}.*another folder"):
        train_long(replace(COURSE, **change), draw, folder)  # type: ignore[arg-type]


_stopped: list[Path] = []


def _three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not _stopped:
        _stopped.append(tmp_path_factory.mktemp("stopped"))
        with pytest.raises(Interrupted):
            trained(_stopped[0], watch=stop_after(3)[1])
    return _stopped[0]


def test_a_converted_file_is_no_run_to_go_on_from(tmp_path: Path) -> None:
    from_checkpoint(initial(NETWORK, 1), tmp_path)
    with pytest.raises(CannotResume, match="is of no run"):
        trained(tmp_path)


def test_given_weights_are_begun_with(tmp_path: Path) -> None:
    start = initial(NETWORK, 7)
    course = replace(COURSE, start=start, config=replace(CONFIG, steps=1, warmup_steps=0, peak_rate=1e-9))
    end = trained(tmp_path, course)
    for name, tensor in start.weights.items():
        np.testing.assert_allclose(end.weights[name].numpy(), tensor.numpy(), atol=1e-6)


def test_a_folder_full_of_damage_is_not_trained_over(tmp_path: Path) -> None:
    shutil.copytree(from_checkpoint(initial(NETWORK, 1), tmp_path / "a"), tmp_path / "b" / "step-00000003")
    (tmp_path / "b" / "step-00000003" / "manifest.json").write_text("")
    with pytest.raises(BadCheckpoint, match="no checkpoint in"):
        trained(tmp_path / "b")


SEEING = replace(NETWORK, history=2, gaps=1, tags=1, motion=1)


def seen_before() -> Samples:
    """Frames of two vehicles in turn, with labels."""
    samples = some_samples(40)
    before = np.arange(40) - 2
    labels: dict[str, NDArray[np.generic]] = {
        "tags": np.ones((40, len(TAGS)), np.int8),
        "motion": np.zeros((40, len(MOTION)), np.float32),
    }
    return replace(samples, before=np.maximum(before, -1), labels=labels)


def test_history_gaps_and_heads_are_trained_from_a_stream_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    files = LocalBackend(tmp_path / "data", durable=False)
    dataset = write(files, [seen_before()], THREE_CAMERAS, frames=16)
    config = replace(CONFIG, camera_dropout=0.3, gaps=Gaps(camera=0.3, past=0.3, signals=0.3))
    course = replace(COURSE, network=SEEING, config=config)

    def run(folder: Path, watch: Watch = NOBODY) -> bytes:
        order = Order(dataset, config, seed=1)
        with Stream(order, lambda s: read_shard(files, s, THREE_CAMERAS), range(2), history=2) as stream:
            return to_bytes(trained(folder, course, stream.draw, watch))

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", stop_after(5)[1])
    assert run(tmp_path / "parts") == whole
    start = initial(SEEING, COURSE.seed)
    after = from_bytes(whole).weights
    moved = [n for n in after if n.startswith("heads.") and not torch.equal(after[n], start.weights[n])]
    assert {name.split(".")[1] for name in moved} == {"tags", "motion"}


def test_what_could_not_teach_the_network_is_refused_before_a_step(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match="heads without labels"):
        trained(tmp_path / "a", replace(COURSE, network=replace(NETWORK, tags=1)))
    with pytest.raises(BadConfig, match="needs a network with gaps 1"):
        trained(tmp_path / "b", replace(COURSE, config=replace(CONFIG, gaps=Gaps(camera=0.1))))
