"""Work as generators: progress, results, errors as values, cancelling, clean-up."""

import threading

import pytest

from stackalign.core.work import Cancelled, Done, Failed, Progress, WorkCancelled, drain


class Recorder:
    """A piece of work that says what became of it."""

    def __init__(self, steps=5, error=None, fail_at=None):
        self.steps, self.error, self.fail_at = steps, error, fail_at
        self.done, self.cleaned = 0, False

    def run(self):
        try:
            for k in range(self.steps):
                if k == self.fail_at:
                    raise self.error
                self.done += 1
                yield Progress(k + 1, self.steps, f"step {k + 1}", partial=self.done if k else None)
            return "result"
        finally:
            self.cleaned = True


def test_work_runs_to_its_result():
    work, seen = Recorder(), []
    outcome = drain(work.run(), seen.append)
    assert isinstance(outcome, Done)
    assert outcome.value == outcome.unwrap() == "result"
    assert [(p.done, p.total, p.message) for p in seen] == [(k, 5, f"step {k}") for k in range(1, 6)]
    assert work.cleaned


def test_work_without_a_step():
    def work():
        return 3
        yield

    assert drain(work()).unwrap() == 3


@pytest.mark.parametrize(
    "error", [ValueError("frame 2"), RuntimeError("out of memory"), MemoryError(), StopIteration()]
)
def test_an_error_becomes_a_value(error):
    work = Recorder(error=error, fail_at=2)
    outcome = drain(work.run())
    assert isinstance(outcome, Failed)
    assert work.cleaned
    raised = outcome.error if isinstance(error, StopIteration) else error  # Python makes a RuntimeError of that one
    assert outcome.error is raised
    with pytest.raises(type(raised)):
        outcome.unwrap()


def test_an_error_of_the_listener_ends_the_work_too():
    work = Recorder()

    def listen(progress):
        raise ValueError("the window is gone")

    outcome = drain(work.run(), listen)
    assert isinstance(outcome, Failed)
    assert work.cleaned


def test_cancelling_keeps_the_last_partial_result_and_cleans_up_at_once():
    work = Recorder()
    outcome = drain(work.run(), should_stop=lambda: work.done == 3)
    assert isinstance(outcome, Cancelled)
    assert outcome.partial == 3
    assert work.done == 3
    assert work.cleaned
    with pytest.raises(WorkCancelled, match="cancelled before it was finished") as info:
        outcome.unwrap()
    assert info.value.partial == 3


def test_cancelling_before_there_is_a_result():
    work = Recorder()
    assert drain(work.run(), should_stop=lambda: True).partial is None


def test_a_step_without_partial_result_does_not_forget_the_one_before():
    def work():
        yield Progress(1, 3, partial="good")
        yield Progress(2, 3)
        yield Progress(3, 3)

    steps = iter((False, False, True))
    assert drain(work(), should_stop=lambda: next(steps)).partial == "good"


def test_ctrl_c_is_a_cancel():
    work = Recorder(error=KeyboardInterrupt(), fail_at=3)
    outcome = drain(work.run())
    assert isinstance(outcome, Cancelled)
    assert outcome.partial == 3
    assert work.cleaned


def test_leaving_the_interpreter_is_not_swallowed():
    work = Recorder(error=SystemExit(2), fail_at=1)
    with pytest.raises(SystemExit):
        drain(work.run())
    assert work.cleaned


def test_an_event_of_another_thread_stops_the_work():
    stop, started = threading.Event(), threading.Event()
    work = Recorder(steps=10**9)
    found = []

    def run():
        found.append(drain(work.run(), lambda p: started.set(), stop.is_set))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(found[0], Cancelled)
    assert work.cleaned


def test_work_is_made_of_work():
    def outer():
        first = yield from Recorder(steps=2).run()
        second = yield from Recorder(steps=3).run()
        return first + second

    seen = []
    assert drain(outer(), seen.append).unwrap() == "resultresult"
    assert len(seen) == 5
