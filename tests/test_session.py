"""The session without a viewer: changes, undo, runs, stale results, edits by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackalign.core.registration import FrameQuality, Registration
from stackalign.core.stack import ImageStack
from stackalign.core.transform import Transform
from stackalign.core.transform_series import TransformSeries
from stackalign.core.work import Cancelled, Done, drain
from stackalign.export import aligned_like, choices_of, config_of, lazy_array, script_of
from stackalign.io.write import write_stack
from stackalign.runs import Motion, Movie, RunOutput, region_within
from stackalign.session import AlignmentSession

RNG = np.random.default_rng(5)
SCENE = RNG.random((48, 56)) ** 4 * 900


def moving(count: int = 6) -> ImageStack:
    """Return frames of one scene that drifts by (t, -2 t) pixels, with a little noise."""
    frames = [np.roll(SCENE, (t, -2 * t), (0, 1)) for t in range(count)]
    return ImageStack(np.rint(np.stack(frames) + RNG.normal(50, 3, (count, *SCENE.shape))).astype(np.uint16))


@pytest.fixture
def session() -> AlignmentSession:
    session = AlignmentSession()
    session.open_stack(moving())
    return session


def output(count: int = 6, shift: float = 1.0) -> RunOutput:
    series = TransformSeries.from_translations(np.arange(count)[:, None] * [-shift, 2 * shift])
    return RunOutput(Registration(series, FrameQuality.empty(count, 2), provenance={"method": "x"}), None, 0.5)


def finished(session: AlignmentSession, **changes: float) -> Any:
    token, work = session.begin()
    work.close()
    return session.accept(token, output(**changes))


def test_a_run_from_begin_to_accept(session: AlignmentSession) -> None:
    seen: list[Any] = []
    session.events.current.connect(seen.append)
    token, work = session.begin()
    assert session.busy
    assert session.obstacle == "A run is going on"
    steps: list[Any] = []
    outcome = drain(work, steps.append)
    assert isinstance(outcome, Done)
    run = session.accept(token, outcome.value)
    assert run is session.current is seen[-1]
    assert not session.busy
    np.testing.assert_allclose(run.motion.drift, np.arange(6)[:, None] * [1, -2], atol=0.1)
    assert run.quality is not None
    assert run.quality.correlation_after > run.quality.correlation_before
    assert run.sentence.startswith("Aligned 6 frames; none flagged; correlation with the mean 0.")
    assert any(isinstance(step.partial, RunOutput) for step in steps)
    assert run.registration.provenance["seed"] == 0


def test_a_recipe_may_name_an_image_as_the_reference(session: AlignmentSession, tmp_path: Path) -> None:
    path = write_stack(tmp_path / "image.tif", moving(1))
    session.change(reference=str(path))
    token, work = session.begin()
    run = session.accept(token, drain(work).unwrap())
    assert run is not None
    np.testing.assert_allclose(run.motion.drift, np.arange(6)[:, None] * [1, -2], atol=0.1)
    session.change(reference="no such thing")
    _, work = session.begin()
    with pytest.raises(ValueError, match="neither a file nor one of mean"):
        drain(work).unwrap()


def test_cancelled_work_keeps_its_partial_result(session: AlignmentSession) -> None:
    token, work = session.begin()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    outcome = drain(work, should_stop=stop)
    assert isinstance(outcome, Cancelled)
    if outcome.partial is not None:
        run = session.accept(token, outcome.partial)
        assert run is not None
        assert run.sentence.startswith("Cancelled: ") is not run.complete
    else:
        session.end(token)
    assert not session.busy


def test_cancelled_while_measuring_is_complete(session: AlignmentSession) -> None:
    token, work = session.begin()
    measuring: list[bool] = []

    def watch(step: Any) -> None:
        measuring.append(step.partial is not None and step.partial.complete)

    outcome = drain(work, watch, lambda: bool(measuring) and measuring[-1])
    assert isinstance(outcome, Cancelled)
    run = session.accept(token, outcome.partial)
    assert run is not None
    assert run.complete
    assert run.quality is None
    assert run.sentence == "Aligned 6 frames; none flagged."


def test_results_of_another_token_are_dropped(session: AlignmentSession) -> None:
    first, work = session.begin()
    work.close()
    session.end(first)
    second, work = session.begin()
    work.close()
    assert session.accept(first, output()) is None
    assert session.runs == ()
    assert session.accept(second, output()) is not None
    assert session.accept(second, output()) is None
    assert len(session.runs) == 1


def test_a_run_sees_the_values_it_was_begun_with(session: AlignmentSession) -> None:
    session.change(reference="first")
    token, work = session.begin()
    work.close()
    session.change(reference="previous")
    run = session.accept(token, output())
    assert run is not None
    assert run.choices.reference == "first"


def test_a_run_of_a_movie_that_was_left_is_listed_but_not_shown(session: AlignmentSession) -> None:
    token, work = session.begin()
    work.close()
    session.open_stack(moving(4))
    run = session.accept(token, output())
    assert run in session.runs
    assert session.current is None
    session.show_run(1)
    assert session.current is run
    assert session.movie is run.movie


@pytest.mark.parametrize("frames", [(0, 9), (3, 3), (-1, 4)])
def test_frames_that_are_not_there(session: AlignmentSession, frames: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="do not lie within 0 to 5"):
        session.change(frames=frames)


def test_obstacles_name_their_reason() -> None:
    session = AlignmentSession()
    assert session.obstacle == "Choose a movie first"
    with pytest.raises(ValueError, match="Choose a movie first"):
        session.begin()
    session.open_stack(moving(1))
    assert "one frame" in session.obstacle


def test_another_movie_puts_range_and_region_away(session: AlignmentSession) -> None:
    session.change(frames=(1, 4))
    session.set_region(((5, 5), (5, 40), (30, 40), (30, 5)))
    session.open_stack(ImageStack(np.zeros((3, 20, 20), np.uint8), name="b"))
    assert session.choices.frames is None
    assert session.choices.preprocess.region is None
    session.undo()
    assert session.choices.frames == (1, 4)
    assert session.choices.preprocess.region == (5, 31, 5, 41)


ACTIONS: dict[str, Callable[[AlignmentSession], object]] = {
    "first": lambda s: s.change(reference="first"),
    "number": lambda s: s.change(reference=2),
    "range": lambda s: s.change(frames=(1, 5)),
    "region": lambda s: s.set_region(((5, 5), (5, 40), (30, 40), (30, 5))),
    "no region": lambda s: s.set_region(None),
    "align": finished,
    "again": lambda s: finished(s, shift=2.0),
    "remove": lambda s: s.remove_run(s.runs[-1].number) if s.runs else None,
    "edit": lambda s: s.edit_transforms("nudge", edited(s)) if s.current is not None else None,
    "open": lambda s: s.open_stack(moving(6)),
}


def edited(session: AlignmentSession) -> TransformSeries:
    assert session.current is not None
    series = session.current.registration.transforms
    return series.replaced(1, Transform.from_translation((0.5, 0.5)) @ series[1])


def state(session: AlignmentSession) -> tuple[Any, ...]:
    return (session.movie, session.choices, session.runs, session.current)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(ACTIONS)), max_size=8))
def test_undo_and_redo_restore_every_state_exactly(names: list[str]) -> None:
    session = AlignmentSession()
    session.open_stack(moving())
    for name in names:
        ACTIONS[name](session)
    states = [state(session)]
    while session.undo():
        states.append(state(session))
    assert not session.history.undo_name
    for expected in reversed(states[:-1]):
        assert session.redo()
        assert all(a is b or a == b for a, b in zip(state(session), expected, strict=True))
    assert not session.redo()


def test_clicks_on_one_field_are_one_step(session: AlignmentSession) -> None:
    for stop in (3, 4, 5):
        session.change(frames=(0, stop), merge="frames")
    assert session.undo()
    assert session.choices.frames is None
    assert not session.undo()


def test_a_method_keeps_its_parameters(session: AlignmentSession) -> None:
    registrar = session.choices.registrar.model_copy(update={"max_shift": 7.0})
    session.change(registrar=registrar)
    assert session.default_registrar("cross-correlation") == registrar


def test_edits_by_hand_are_noted(session: AlignmentSession) -> None:
    finished(session)
    session.edit_transforms("nudge frame 1", edited(session), {1: "set by hand"})
    run = session.current
    assert run is not None
    assert run.registration.provenance["edits"] == ("nudge frame 1",)
    assert run.registration.quality.reasons[1] == "set by hand"
    assert run.flagged == (1,)
    session.undo()
    assert session.current is not None
    assert session.current.flagged == ()
    with pytest.raises(ValueError, match="3 transforms for 6 frames"):
        session.edit_transforms("cut", edited(session).selected(slice(0, 3)))


def test_a_worse_result_says_so(session: AlignmentSession) -> None:
    from stackalign.core.quality import measure

    still = ImageStack(np.stack([SCENE] * 6).astype(np.uint16))
    session.open_stack(still)
    away = output(shift=1.0)
    quality = measure(still, away.registration.transforms)
    token, work = session.begin()
    work.close()
    run = session.accept(token, RunOutput(away.registration, quality, 0.1))
    assert run is not None
    assert "worse than doing nothing" in run.sentence


@pytest.mark.parametrize(
    ("vertices", "expected"),
    [
        (((9.5, 4.2), (9.5, 30.0), (29.5, 30.0), (29.5, 4.2)), (10, 30, 5, 31)),
        (((-9, -9), (-9, 99), (99, 99), (99, -9)), (0, 48, 0, 56)),
        (((5, 5), (25, 10), (20, 40)), ((5.0, 5.0), (25.0, 10.0), (20.0, 40.0))),
        (((5, 20), (20, 35), (35, 20), (20, 5)), ((5.0, 20.0), (20.0, 35.0), (35.0, 20.0), (20.0, 5.0))),
    ],
)
def test_drawn_shapes_become_regions(vertices: Any, expected: Any) -> None:
    assert region_within(vertices, (48, 56)) == expected


@pytest.mark.parametrize("vertices", [((50, 60), (50, 90), (80, 90), (80, 60)), ((3, 3), (3, 9), (4, 9), (4, 3))])
def test_regions_with_nothing_in_them(vertices: Any) -> None:
    with pytest.raises(ValueError, match="pixels of the frame; it takes 8"):
        region_within(vertices, (48, 56))


def test_motion_is_the_drift_of_the_centre() -> None:
    turn = Transform.from_rotation(np.deg2rad(10), centre=(23.5, 27.5))
    series = TransformSeries.from_transforms([Transform.identity(2), turn, Transform.from_translation((3.0, -1.0))])
    motion = Motion.of(Registration(series, FrameQuality.empty(3, 2)), (48, 56))
    np.testing.assert_allclose(motion.drift, [[0, 0], [0, 0], [-3, 1]], atol=1e-9)
    np.testing.assert_allclose(motion.angle, [0, -10, 0], atol=1e-9)
    assert motion.axes == "yx"


def test_frames_that_are_not_aligned_yet_have_no_motion() -> None:
    series = TransformSeries.from_translations(np.ones((3, 2)), valid=[True, False, True])
    quality = FrameQuality.empty(3, 2).with_reasons({1: "not aligned: the run ended before"})
    motion = Motion.of(Registration(series, quality), (48, 56), only_valid=True)
    assert np.isnan(motion.drift[1]).all()
    assert not motion.flagged.any()


def test_a_recipe_holds_every_choice(session: AlignmentSession) -> None:
    session.change(reference="first", frames=(1, 5), anchor="mean")
    session.set_region(((5, 5), (25, 10), (20, 40)))
    assert session.movie is not None
    assert choices_of(config_of(session.movie, session.choices)) == session.choices


def test_the_script_of_defaults_is_short(session: AlignmentSession) -> None:
    movie = Movie(moving(), path="/data/a b.tif", file_axes="tyx")
    lines = script_of(movie, session.choices).splitlines()
    assert lines[2] == "stack = sa.read_stack('/data/a b.tif', axes='tyx')"
    assert "result = sa.register(stack, sa.CrossCorrelation())" in lines
    assert compile("\n".join(lines), "script", "exec")


@pytest.mark.parametrize("axes", ["tzyx", "ztyx", "tcyx", "cztyx", "tyxs"])
def test_any_order_of_axes_is_aligned_and_kept(axes: str) -> None:
    sizes = {"t": 4, "z": 3, "c": 2, "y": 24, "x": 26, "s": 3}
    array = RNG.integers(0, 999, [sizes[a] for a in axes]).astype(np.uint16)
    volume = "z" in axes
    shape = [sizes[a] for a in ("tzyx" if volume else "tyx")]
    session = AlignmentSession()
    session.open_stack(np.zeros(shape, np.uint16))
    token, work = session.begin()
    work.close()
    shifts = np.arange(4)[:, None] * ([0, 1, -2] if volume else [1, -2])
    quality = FrameQuality.empty(4, 3 if volume else 2)
    run = session.accept(token, RunOutput(Registration(TransformSeries.from_translations(shifts), quality), None, 0.1))
    assert run is not None
    fixed = np.asarray(aligned_like(run, array, axes))
    assert fixed.shape == array.shape
    assert fixed.dtype == array.dtype
    order = [axes.index(a) for a in "tyxzcs" if a in axes]
    before, after = array.transpose(order), fixed.transpose(order)
    for t in range(4):
        np.testing.assert_array_equal(after[t, t:, : 26 - 2 * t], before[t, : 24 - t, 2 * t :])


def test_lazy_arrays_read_one_frame_at_a_time() -> None:
    read: list[int] = []

    class Counting:
        shape, dtype = (5, 8, 8), np.dtype(np.uint8)

        def __getitem__(self, t: int) -> Any:
            read.append(t)
            return np.full((8, 8), t, np.uint8)

    array = lazy_array(ImageStack(Counting(), missing={1: "lost"}))
    assert read == []
    assert int(array[3].mean().compute()) == 3
    assert read == [3]
    assert not np.asarray(array[1]).any()
    np.testing.assert_array_equal(np.asarray(array[2:5, 1:3, 4]), np.repeat([[2], [3], [4]], 2, axis=1))
