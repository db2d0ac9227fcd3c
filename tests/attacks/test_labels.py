from __future__ import annotations

import numpy as np
import pytest

from hanse.attacks.attack import Poisons
from hanse.attacks.backdoor import Backdoor
from hanse.attacks.labels import LabelFlip, NoisyLabels
from hanse.core.errors import PipelineError, SettingError
from hanse.data.examples import Examples


def examples(y: list[int], dtype: type = np.int64) -> Examples:
    x, labels = np.arange(len(y), dtype=np.float32)[:, None], np.array(y, dtype=dtype)
    x.flags.writeable = labels.flags.writeable = False
    return Examples(x, labels)


def poisoned(attack: Poisons, given: Examples, num_classes: int, seed: int = 0) -> Examples:
    return attack.poison(given, member=0, num_members=1, num_classes=num_classes, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_flips(dtype: type) -> None:
    given = examples([0, 1, 2, 2, 9], dtype)
    for attack, expected in (
        (LabelFlip(), [9, 8, 7, 7, 0]),
        (LabelFlip(source=2, target=5), [0, 1, 5, 5, 9]),
        (LabelFlip(target=3), [3, 3, 3, 3, 3]),
        (LabelFlip(share=0.0), [0, 1, 2, 2, 9]),
    ):
        found = poisoned(attack, given, 10)
        assert found.y.tolist() == expected
        assert found.y.dtype == dtype
        np.testing.assert_array_equal(found.x, given.x)
    assert given.y.tolist() == [0, 1, 2, 2, 9]


def test_a_share_of_those_concerned() -> None:
    given = examples([0] * 10 + [1] * 10)
    found = poisoned(LabelFlip(source=1, target=2, share=0.35), given, 3)
    assert (found.y[:10] == 0).all()
    assert (found.y[10:] == 2).sum() == 4
    np.testing.assert_array_equal(found.y, poisoned(LabelFlip(source=1, target=2, share=0.35), given, 3).y)


def test_a_class_that_nobody_has_and_no_examples() -> None:
    assert poisoned(LabelFlip(source=1, target=0), examples([0, 2]), 3).y.tolist() == [0, 2]
    for attack in (LabelFlip(), NoisyLabels()):
        assert len(poisoned(attack, examples([]), 3)) == 0


def test_noisy_labels_are_all_other_classes_alike() -> None:
    given = examples([1] * 3000)
    found = poisoned(NoisyLabels(share=1.0), given, 4, seed=1)
    counts = np.bincount(found.y, minlength=4)
    assert counts[1] == 0
    assert all(abs(counts[k] - 1000) < 6 * np.sqrt(3000 * 2 / 9) for k in (0, 2, 3))  # fails once in 10⁸ seeds
    half = poisoned(NoisyLabels(share=0.5), given, 4)
    assert (half.y != 1).sum() == 1500
    assert poisoned(NoisyLabels(share=1.0), examples([0, 0]), 1).y.tolist() == [0, 0]
    assert poisoned(NoisyLabels(share=1.0), examples([0, 1, 1], np.uint8), 2).y.tolist() == [1, 0, 0]


def test_sequences_of_tokens() -> None:
    given = Examples(np.zeros((2, 3)), np.array([[0, 1, 2], [2, 2, -1]]))
    assert poisoned(LabelFlip(), given, 3).y.tolist() == [[2, 1, 0], [0, 0, -1]]
    with pytest.raises(PipelineError, match="needs one class an example"):
        poisoned(Backdoor(features=(0,)), given, 3)


@pytest.mark.parametrize("attack", [LabelFlip(), NoisyLabels(), Backdoor(features=(0,))], ids=repr)
def test_numbers_are_no_classes(attack: Poisons) -> None:
    with pytest.raises(PipelineError, match="their targets are of type float64"):
        poisoned(attack, Examples(np.zeros((2, 1)), np.array([0.5, 1.0])), 0)


@pytest.mark.parametrize("attack", [LabelFlip(source=3, target=0), LabelFlip(target=3), Backdoor(target=3)], ids=repr)
def test_classes_that_are_not_there(attack: Poisons) -> None:
    with pytest.raises(SettingError, match="must be one of the classes 0 to 2, got 3"):
        poisoned(attack, examples([0, 1]), 3)


@pytest.mark.parametrize(
    "settings",
    [{"source": -1, "target": 1}, {"target": -1}, {"source": 1}, {"source": 1, "target": 1}, {"share": 1.5}],
)
def test_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="must"):
        LabelFlip(**settings)
    with pytest.raises(SettingError, match="must be in"):
        NoisyLabels(share=-0.5)


@pytest.mark.parametrize("boost", [0.0, -1.0, float("inf"), float("nan")])
def test_a_boost_that_is_no_factor_is_refused(boost: float) -> None:
    for attack in (LabelFlip, NoisyLabels):
        with pytest.raises(SettingError, match="boost: must be more than 0 and finite"):
            attack(boost=boost)
