"""The form of a parameter record: numbers that are left to the method, and those that are not."""

import pytest

import stackalign as sa
from stackalign.widgets._form import ParameterForm


@pytest.fixture
def form(qtbot):
    form = ParameterForm(sa.Reals())
    qtbot.addWidget(form)
    return form


@pytest.mark.parametrize(
    ("name", "unit", "first"), [("max_shift", "px", 0.1), ("iterations", "", 1), ("batch_size", "frames", 1)]
)
def test_a_number_left_to_the_method_says_so(form, qtbot, name, unit, first):
    row = form.rows[name]
    assert row.value is None
    assert row.editor.native.text() == "auto"
    assert not row.editor.enabled
    with qtbot.waitSignal(form.changed):
        row.use.value = True
    assert getattr(form.record, name) == row.value == first
    assert row.editor.native.text().split()[1:] == [unit][: len(unit)]


def test_a_number_comes_back_when_it_is_ticked_again(form):
    row = form.rows["max_shift"]
    row.use.value = True
    row.editor.value = 12.5
    row.use.value = False
    assert form.record.max_shift is None
    row.use.value = True
    assert form.record.max_shift == 12.5


def test_whole_numbers_stay_whole(form):
    form.load(sa.Reals(rank=3, batch_size=20))
    form.rows["seed"].editor.value = 7
    assert form.record == sa.Reals(rank=3, batch_size=20, seed=7)
    assert isinstance(form.record.rank, int)
