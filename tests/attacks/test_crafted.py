"""What holds for every attack on updates, and those that need no more than a line of arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hanse.attacks.alie import ALIE, largest_hidden
from hanse.attacks.attack import Crafts, Poisons, Seen, Triggers
from hanse.attacks.backdoor import Backdoor
from hanse.attacks.distributed_backdoor import DistributedBackdoor
from hanse.attacks.fang import FangAdaptive
from hanse.attacks.free_rider import FreeRider
from hanse.attacks.gaussian_noise import GaussianNoise
from hanse.attacks.ipm import IPM
from hanse.attacks.labels import LabelFlip
from hanse.attacks.min_max import MinMax
from hanse.attacks.model_replacement import ModelReplacement
from hanse.attacks.multiples import Scaled, SignFlip
from hanse.core.errors import SettingError

SeenBy = Callable[..., Seen]
ATTACKS = [
    SignFlip(scale=2.0),
    Scaled(factor=10.0),
    GaussianNoise(stddev=0.5),
    GaussianNoise(stddev=0.5, added=True),
    ALIE(),
    ALIE(z=1.5, omniscient=True),
    IPM(epsilon=0.5),
    FangAdaptive(),
    FangAdaptive(direction="mean"),
    MinMax(),
    MinMax(perturbation="unit"),
    MinMax(perturbation="sign", omniscient=False),
    FreeRider(),
    FreeRider(noise=0.1, decay=1.0),
    ModelReplacement(),
    DistributedBackdoor(boost=3.0),
]


def median(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.median(rows, axis=0))


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("rows", ["normal", "zero", "no honest", "alike", "huge"])
def test_finite_of_the_same_type_and_the_same_again(
    seen_by: SeenBy, attack: Crafts, dtype: type, num_members: int, rows: str
) -> None:
    rng = np.random.default_rng(1)
    scale = {"zero": 0.0, "huge": float(np.finfo(np.float16).max) / 8}.get(rows, 1.0)
    own, honest = scale * rng.normal(size=(num_members, 7)), scale * rng.normal(size=(6, 7))
    if rows == "alike":
        own[:], honest[:] = honest[0], honest[0]
    if rows == "no honest":
        honest = honest[:0]

    def sent() -> Sequence[np.ndarray]:
        return attack.craft(seen_by(own, honest, dtype=dtype, rule=median))

    first, again = sent(), sent()
    assert len(first) == num_members
    for one, other in zip(first, again, strict=True):
        assert one.dtype == dtype
        assert one.shape == (7,)
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_what_is_sent_is_nobody_elses_array(seen_by: SeenBy, attack: Crafts) -> None:
    seen = seen_by([[1.0, -2.0], [0.5, 1.0]], [[1.0, 1.0], [2.0, 0.5], [1.5, 0.7]])
    sent = attack.craft(seen)
    arrays = [*seen.own, *seen.honest]
    assert not any(np.shares_memory(one, other) for one in sent for other in arrays)
    assert not np.shares_memory(sent[0], sent[1])


@pytest.mark.parametrize("attack", [ALIE(omniscient=True), IPM(), FangAdaptive(), MinMax()], ids=repr)
def test_updates_that_the_server_drops_are_left_out(seen_by: SeenBy, attack: Crafts) -> None:
    honest = [[1.0, 2.0], [1.5, 2.5], [0.5, 1.0]]
    clean = attack.craft(seen_by([[1.0, 1.0]], honest, rule=median, num_clients=5))
    dirty = attack.craft(seen_by([[1.0, 1.0]], [[np.nan, 1.0], *honest], rule=median, num_clients=5))
    np.testing.assert_array_equal(clean, dirty)


def test_what_each_is() -> None:
    assert all(isinstance(attack, Crafts) for attack in ATTACKS)
    for attack in (Backdoor(), ModelReplacement(), DistributedBackdoor()):
        assert isinstance(attack, Poisons)
        assert isinstance(attack, Triggers)
    assert not isinstance(Backdoor(), Crafts)
    assert isinstance(LabelFlip(), Poisons)
    assert not isinstance(LabelFlip(), Triggers)


def test_what_each_knows() -> None:
    assert {SignFlip().knows, Scaled().knows, GaussianNoise().knows, FreeRider().knows} == {"own"}
    assert (ALIE().knows, ALIE(omniscient=True).knows) == ("members", "all")
    assert (MinMax(omniscient=False).knows, MinMax().knows) == ("members", "all")
    assert (IPM().knows, FangAdaptive().knows) == ("all", "all")
    assert (ModelReplacement().knows, DistributedBackdoor().knows) == ("members", "own")


def test_sign_flip_and_scaled(seen_by: SeenBy) -> None:
    seen = seen_by([[1.0, -2.0], [0.0, 4.0]])
    np.testing.assert_array_equal(SignFlip().craft(seen), [[-1.0, 2.0], [0.0, -4.0]])
    np.testing.assert_array_equal(SignFlip(scale=3.0).craft(seen), [[-3.0, 6.0], [0.0, -12.0]])
    np.testing.assert_array_equal(Scaled(factor=0.5).craft(seen), [[0.5, -1.0], [0.0, 2.0]])


def test_gaussian_noise(seen_by: SeenBy) -> None:
    size = 40_000
    (alone,) = GaussianNoise(stddev=2.0).craft(seen_by([np.full(size, 5.0)]))
    (added,) = GaussianNoise(stddev=2.0, added=True).craft(seen_by([np.full(size, 5.0)]))
    np.testing.assert_allclose(added, alone + 5.0)
    assert abs(alone.mean()) < 6 * 2.0 / np.sqrt(size)  # fails once in 10⁹ seeds
    assert abs(alone.std() - 2.0) < 6 * 2.0 / np.sqrt(2 * size)
    first, second = GaussianNoise().craft(seen_by([[0.0] * 3, [0.0] * 3]))
    assert not np.array_equal(first, second)


def test_free_rider(seen_by: SeenBy) -> None:
    np.testing.assert_array_equal(FreeRider().craft(seen_by([[1.0, 2.0]])), [[0.0, 0.0]])
    (first,) = FreeRider(noise=0.1, decay=2.0).craft(seen_by([[1.0, 2.0]]))
    (third,) = FreeRider(noise=0.1, decay=2.0).craft(seen_by([[1.0, 2.0]], round_number=3))
    np.testing.assert_allclose(third, first / 9)


def test_largest_hidden_of_alie() -> None:
    # of 50 with 12 hostile: s = 26 − 12 = 14, and Φ(z) = (50 − 12 − 14) / 38 = 0.6316
    assert largest_hidden(50, 12) == pytest.approx(0.33604, abs=1e-4)
    # of 50 with 24: s = 2, and Φ(z) = 24 / 26 = 0.9231
    assert largest_hidden(50, 24) == pytest.approx(1.42608, abs=1e-4)
    assert largest_hidden(50, 30) == pytest.approx(1.64485, abs=1e-4)  # a majority already: as for one supporter
    assert largest_hidden(2, 1) == largest_hidden(1, 1) == largest_hidden(3, 3) == 0.0


def test_alie(seen_by: SeenBy) -> None:
    own = [[1.0, 0.0], [3.0, 0.0]]  # mean (2, 0), standard deviation (1, 0)
    np.testing.assert_allclose(ALIE(z=1.5).craft(seen_by(own)), [[0.5, 0.0]] * 2)
    honest = [[0.0, 2.0], [0.0, 6.0]]  # mean (0, 4), standard deviation (0, 2)
    np.testing.assert_allclose(ALIE(z=0.5, omniscient=True).craft(seen_by(own, honest)), [[0.0, 3.0]] * 2)
    z = largest_hidden(50, 2)
    np.testing.assert_allclose(ALIE().craft(seen_by(own, num_clients=50)), [[2.0 - z, 0.0]] * 2)
    np.testing.assert_allclose(ALIE(z=9.0).craft(seen_by([[7.0, 1.0]])), [[7.0, 1.0]])


def test_ipm(seen_by: SeenBy) -> None:
    honest = [[1.0, 2.0], [3.0, -2.0]]
    np.testing.assert_allclose(IPM(epsilon=0.5).craft(seen_by([[9.0, 9.0]], honest)), [[-1.0, 0.0]])
    np.testing.assert_allclose(IPM(epsilon=2.0).craft(seen_by([[9.0, 8.0]])), [[-18.0, -16.0]])


def test_model_replacement(seen_by: SeenBy) -> None:
    own, honest = [[1.0, -1.0], [1.0, -1.0]], [[0.0, 0.0]] * 6
    sent = ModelReplacement().craft(seen_by(own, num_clients=8))
    np.testing.assert_allclose(sent, [[4.0, -4.0]] * 2)
    np.testing.assert_allclose(np.mean([*honest, *sent], axis=0), own[0])  # the mean is the attackers' model
    np.testing.assert_allclose(ModelReplacement(boost=2.5).craft(seen_by(own)), [[2.5, -2.5]] * 2)
    np.testing.assert_allclose(DistributedBackdoor(boost=3.0).craft(seen_by(own[:1])), [[3.0, -3.0]])


@pytest.mark.parametrize(
    "build",
    [
        lambda: SignFlip(scale=0.0),
        lambda: SignFlip(scale=float("inf")),
        lambda: Scaled(factor=float("nan")),
        lambda: GaussianNoise(stddev=0.0),
        lambda: GaussianNoise(stddev=float("nan")),
        lambda: ALIE(z=-0.1),
        lambda: IPM(epsilon=0.0),
        lambda: MinMax(perturbation="other"),
        lambda: FreeRider(noise=-1.0),
        lambda: FreeRider(decay=float("inf")),
        lambda: FangAdaptive(direction="other"),
        lambda: FangAdaptive(steps=0),
        lambda: FangAdaptive(largest=0.0),
        lambda: FangAdaptive(apart=-1.0),
        lambda: FangAdaptive(reach=1.0),
        lambda: ModelReplacement(boost=0.0),
        lambda: DistributedBackdoor(boost=0.0),
        lambda: DistributedBackdoor(pieces=0),
    ],
)
def test_refused(build: Callable[[], object]) -> None:
    with pytest.raises(SettingError, match="must be"):
        build()
