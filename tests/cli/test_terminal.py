from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING

import pytest

from stackalign.cli.terminal import ProgressLine, describe, duration, finish, interruptible, one_line
from stackalign.core.work import Progress, WorkCancelled

if TYPE_CHECKING:
    from stackalign.core.work import Work


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.042, "0.042 s"),
        (4.21, "4.2 s"),
        (12.4, "12 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_progress_line_tells_stage_share_and_time_left():
    assert describe(Progress(1, 2, "Aligning"), 12.0) == "Aligning  [##########          ]  50%  12 s left"
    assert describe(Progress(0, 0), None) == "Working  [                    ]   0%"


def test_progress_line_estimates_the_time_left_from_this_stage_alone():
    now = [0.0]
    stream = io.StringIO()
    line = ProgressLine(stream, lambda: now[0])
    for t in range(11):
        now[0] = 1.0 * t
        line(Progress(t, 100, "Aligning"))
    assert "90 s" not in stream.getvalue()
    assert stream.getvalue().endswith("10%  1 min 30 s left")
    line(Progress(0, 100, "Writing"))
    assert stream.getvalue().rstrip().endswith("Writing  [                    ]   0%")
    line.clear()
    assert stream.getvalue().endswith("\r")


def test_progress_line_rewrites_at_most_ten_times_a_second():
    stream = io.StringIO()
    line = ProgressLine(stream, lambda: 0.0)
    for t in range(1000):
        line(Progress(t, 1000, "Aligning"))
    assert stream.getvalue().count("\r") == 1


def test_progress_line_says_why_nothing_moves():
    stream = io.StringIO()
    line = ProgressLine(stream, lambda: 0.0)
    line.say_compiling()
    assert stream.getvalue() == "\rCompiling for this processor: once after an installation"
    line(Progress(1, 2, "Aligning"))
    assert stream.getvalue().rstrip().endswith("50%")


def counting(steps: int, seen: list[str]) -> Work[int]:
    try:
        for k in range(steps):
            yield Progress(k, steps)
            if k == 3:
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        seen.append("cleaned up")
    return steps


def test_finish_returns_the_value():
    assert finish(counting(2, [])) == 2


def test_ctrl_c_cancels_at_the_next_step_and_cleans_up():
    seen: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(WorkCancelled):
        finish(counting(100, seen))
    assert seen == ["cleaned up"]
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_stops_at_once():
    with interruptible() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.tif"), "a.tif: No such file or directory"),
        (MemoryError(), "there is not enough memory; try a range of frames or a smaller region"),
        (TypeError("odd"), "unexpected error: TypeError: odd"),
        (ImportError("a network needs PyTorch: pip install it"), "a network needs PyTorch: pip install it"),
        (RuntimeError(), "unexpected error: RuntimeError"),
    ],
)
def test_one_line(error, text):
    assert one_line(error) == text
