from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.attacks.backdoor import Backdoor
from hanse.attacks.distributed_backdoor import DistributedBackdoor
from hanse.attacks.model_replacement import ModelReplacement
from hanse.attacks.planted import Planted
from hanse.attacks.trigger import Corner, Trigger
from hanse.core.errors import DataError, SettingError
from hanse.data.examples import Examples


def images(count: int = 20, shape: tuple[int, ...] = (2, 5, 6), dtype: type = np.float32) -> Examples:
    x, y = np.zeros((count, *shape), dtype=dtype), np.arange(count) % 4
    x.flags.writeable = y.flags.writeable = False
    return Examples(x, y)


def poisoned(attack: Planted, examples: Examples, member: int = 0, num_members: int = 1) -> Examples:
    rng = np.random.default_rng(7)
    return attack.poison(examples, member=member, num_members=num_members, num_classes=4, rng=rng)


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [
        ("top_left", slice(0, 2), slice(0, 2)),
        ("top_right", slice(0, 2), slice(4, 6)),
        ("bottom_left", slice(3, 5), slice(0, 2)),
        ("bottom_right", slice(3, 5), slice(4, 6)),
    ],
)
@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6)])
def test_a_square_in_a_corner(corner: Corner, rows: slice, columns: slice, shape: tuple[int, ...]) -> None:
    expected = np.zeros(shape, dtype=bool)
    expected[..., rows, columns] = True
    np.testing.assert_array_equal(Trigger(size=2, corner=corner).whole(shape), expected)


def test_features_of_a_table() -> None:
    x = np.zeros((2, 4))
    trigger = Trigger(features=(3, 1), value=-2.0)
    np.testing.assert_array_equal(trigger.put(x, trigger.whole((4,))), [[0.0, -2.0, 0.0, -2.0]] * 2)
    np.testing.assert_array_equal(trigger.put(x, trigger.piece((4,), 0, 2)), [[0.0, 0.0, 0.0, -2.0]] * 2)
    assert not x.any()


@given(size=st.integers(1, 5), pieces=st.integers(1, 30), channels=st.integers(0, 3), features=st.booleans())
def test_pieces_are_disjoint_and_together_the_whole(size: int, pieces: int, channels: int, features: bool) -> None:
    shape = (*([channels] if channels else []), 6, 7)
    trigger = Trigger(size=size, features=tuple(range(0, 3 * size, 3)) if features else ())
    masks = np.stack([trigger.piece(shape, i, pieces) for i in range(pieces)])
    np.testing.assert_array_equal(masks.sum(axis=0), trigger.whole(shape).astype(int))
    parts = masks.reshape(pieces, -1).sum(axis=1) // (1 if features else max(1, channels))
    assert parts.max() - parts.min() <= 1


@pytest.mark.parametrize("attack", [Backdoor(target=3, share=0.25), ModelReplacement(target=3, share=0.25)], ids=repr)
def test_a_share_of_the_examples_gets_trigger_and_target(attack: Planted) -> None:
    before = images()
    found = poisoned(attack, before)
    hit = found.x.any(axis=(1, 2, 3))
    assert hit.sum() == 5
    assert (found.y[hit] == 3).all()
    np.testing.assert_array_equal(found.y[~hit], before.y[~hit])
    np.testing.assert_array_equal(found.x[hit], np.broadcast_to(attack.trigger.whole((2, 5, 6)), (5, 2, 5, 6)))
    assert found.x.dtype == np.float32
    np.testing.assert_array_equal(found.x, poisoned(attack, before).x)
    assert not before.x.any()


def test_no_share_and_no_examples() -> None:
    assert not poisoned(Backdoor(share=0.0), images()).x.any()
    assert len(poisoned(Backdoor(), images(0))) == 0


@pytest.mark.parametrize("build", [Backdoor, ModelReplacement, DistributedBackdoor])
def test_success_is_measured_on_other_classes_with_the_whole_trigger(build: Callable[..., Planted]) -> None:
    attack = build(target=1, value=0.5)
    test = images()
    found = attack.triggered(test, num_classes=4)
    assert len(found) == 15
    assert (found.y == 1).all()
    assert found.y.dtype == test.y.dtype
    np.testing.assert_array_equal(found.x[3] != 0, attack.trigger.whole((2, 5, 6)))
    assert not test.x.any()
    assert len(attack.triggered(test.take(test.y == 1), num_classes=4)) == 0


@pytest.mark.parametrize("num_members", [1, 2, 3, 4, 7])
def test_the_members_of_a_distributed_backdoor_plant_all_of_it_and_none_the_whole(num_members: int) -> None:
    attack = DistributedBackdoor(share=1.0)
    planted = [poisoned(attack, images(1), i, num_members).x[0] != 0 for i in range(num_members)]
    whole = attack.trigger.whole((2, 5, 6))
    np.testing.assert_array_equal(np.any(planted, axis=0), whole)
    pieces = min(4, num_members)
    assert all(mask.sum() <= -(-16 // pieces) * 2 for mask in planted)  # two channels
    np.testing.assert_array_equal(np.sum(planted[:pieces], axis=0), whole.astype(int))


def test_no_more_pieces_than_pixels() -> None:
    attack = DistributedBackdoor(size=1, pieces=4, share=1.0)
    assert all((poisoned(attack, images(1), i, 4).x != 0).sum() == 2 for i in range(4))


def test_bytes() -> None:
    found = poisoned(Backdoor(value=255, share=1.0), images(dtype=np.uint8))
    assert found.x.dtype == np.uint8
    assert found.x.max() == 255
    for value in (256.0, 0.5, -1.0):
        with pytest.raises(DataError, match="can't be put into inputs of type uint8"):
            poisoned(Backdoor(value=value), images(dtype=np.uint8))


def test_triggers_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="6 pixels wide and high, and images are 5 by 6"):
        poisoned(Backdoor(size=6), images())
    with pytest.raises(DataError, match="sets feature 4, and inputs have 4"):
        poisoned(Backdoor(features=(0, 4)), images(shape=(4,)))
    with pytest.raises(DataError, match=r"inputs have shape \[4\]") as caught:
        poisoned(Backdoor(), images(shape=(4,)))
    assert "features" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "settings",
    [
        {"target": -1},
        {"share": 1.5},
        {"size": 0},
        {"value": float("nan")},
        {"corner": "middle"},
        {"features": (-1,)},
        {"features": (1, 1)},
    ],
)
@pytest.mark.parametrize("build", [Backdoor, ModelReplacement, DistributedBackdoor])
def test_refused(build: Callable[..., Planted], settings: dict[str, object]) -> None:
    with pytest.raises(SettingError, match="must"):
        build(**settings)
