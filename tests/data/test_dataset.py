"""`Dataset` and `Examples` refuse what does not fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hanse.core.errors import DataError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples


def build(y: Any, **more: Any) -> Dataset:
    labels = np.asarray(y)
    return Dataset(name="toy", train=Examples(np.zeros((len(labels), 2), np.float32), labels), **more)


def test_labels_outside_the_range_are_named_with_their_row() -> None:
    with pytest.raises(DataError, match=r"label 2 of training row 1 is outside the range 0 to 1 of its 2 classes"):
        build([0, 2, 1], classes=("a", "b"))
    with pytest.raises(DataError, match="label -1 of training row 2"):
        build([0, 1, -1], classes=("a", "b"))
    with pytest.raises(DataError, match="label -1"):
        build([0, -1])
    with pytest.raises(DataError, match="label 5 of test row 0"):
        build([0, 1], classes=("a", "b"), test=Examples(np.zeros((1, 2)), np.array([5])))


def test_classes_that_are_not_named_get_numbers() -> None:
    assert build([0, 3]).classes == ("0", "1", "2", "3")
    assert build([0, 3]).num_classes == 4
    assert build([0.5, 3], target="number").num_classes == 0


def test_fractions_are_not_classes() -> None:
    with pytest.raises(DataError, match="class indices are whole numbers") as error:
        build([0.0, 1.0])
    assert 'target = "number"' in str(error.value)


def test_absurd_labels_do_not_make_a_million_classes() -> None:
    with pytest.raises(DataError, match="more than a million"):
        build([0, 2_000_000])


def test_tokens_are_checked_with_their_position() -> None:
    tokens = np.array([[0, 1], [1, 7]])
    with pytest.raises(DataError, match="label 7 of training row 1"):
        Dataset(name="t", train=Examples(tokens, tokens), target="next_token", classes=("a", "b"))


def test_shapes_and_names_have_to_fit() -> None:
    with pytest.raises(DataError, match=r"a test input has shape \[3\]"):
        build([0, 1], test=Examples(np.zeros((1, 3)), np.array([0])))
    with pytest.raises(DataError, match="3 feature names for 2 columns"):
        build([0, 1], features=("a", "b", "c"))
    with pytest.raises(DataError, match="column `site` has 3 labels for 2 training rows"):
        build([0, 1], groups={"site": np.zeros(3)})
    with pytest.raises(DataError, match="for 0 test rows"):
        build([0, 1], test_groups={"site": np.zeros(3)})
    with pytest.raises(DataError, match="each input needs one"):
        Examples(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="no examples"):
        Examples.concatenate([])
