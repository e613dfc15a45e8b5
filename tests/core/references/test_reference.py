"""Which image frames are aligned to: the words, numbers and images that a user may give."""

import numpy as np
import pytest

from stackalign.core.references.reference import POLICIES, PairResult, Reference


@pytest.mark.parametrize("word", sorted(set(POLICIES) - {"first"}))
def test_words_are_policies(word):
    assert Reference.of(word, 5, (4, 4)).kind == word
    assert str(Reference.of(word, 5, (4, 4))) == word


@pytest.mark.parametrize(("given", "frame"), [("first", 0), (3, 3), ("3", 3), (-1, 4), (" -2 ", 3), (np.int64(2), 2)])
def test_frames_by_number(given, frame):
    policy = Reference.of(given, 5, (4, 4))
    assert (policy.kind, policy.frame) == ("frame", frame)
    assert str(policy) == f"frame {frame}"


def test_an_image_of_the_frames_shape():
    policy = Reference.of([[1, 2], [3, 4]], 5, (2, 2))
    assert policy.kind == "image"
    assert policy.image.dtype == np.float32
    assert str(policy) == "an external image"
    assert Reference.of(policy, 5, (2, 2)) is policy


@pytest.mark.parametrize(
    ("given", "message"),
    [("average", "not 'average'"), (5, "there is no frame 5 to align to: the stack has frames 0 to 4"),
     (-6, "no frame -6"), ("17", "no frame 17"), (np.zeros((3, 4)), r"the reference image is \(3, 4\)")],
)  # fmt: skip
def test_what_is_no_reference_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Reference.of(given, 5, (4, 4))


def test_a_failed_pair_is_the_identity_without_confidence():
    failed = PairResult.failed(3, "it shows something else")
    assert np.array_equal(failed.matrix, np.eye(4))
    assert failed.confidence == 0
    assert failed.reason
    assert np.isnan(failed.error).all()
