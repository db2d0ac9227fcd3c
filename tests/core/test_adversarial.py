"""Perturbations, against what is worst by hand, and where they may not go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hanse.core.adversarial import FGSM, PGD, Perturbation, gradients_per_batch
from hanse.core.errors import SettingError
from hanse.core.local_work import LocalWork
from hanse.core.objectives import ModelContrast
from hanse.strategies.fedsgd import FedSGD
from hanse.strategies.ifca import IFCA
from hanse.strategies.per_fedavg import PerFedAvg

W = torch.tensor([0.5, -2.0, 0.0, 1.0], dtype=torch.float64)
X = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6], [0.0, 1.0, 0.5, 0.5]], dtype=torch.float64)
Y = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)


def loss(x: Tensor) -> Tensor:
    """Of logistic regression, `[n]`."""
    return torch.log1p(torch.exp(-Y * (x @ W)))


def gradient(x: Tensor) -> Tensor:
    """By hand: −y σ(−y xᵀw) w for each example."""
    return (-Y * torch.sigmoid(-Y * (x @ W))).unsqueeze(1) * W


def silent() -> Tensor:
    raise AssertionError("nothing random was to be drawn")


def noise(seed: int = 0) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.rand(X.shape, generator=generator, dtype=X.dtype) * 2 - 1


def test_fgsm_is_the_worst_case_of_logistic_regression() -> None:
    """Within ε in L-infinity the loss is largest at x − y ε sign(w), where yxᵀw has fallen by ε ‖w‖₁."""
    moved = FGSM(radius=0.25).perturbed(X, gradient, silent)
    torch.testing.assert_close(moved, X - 0.25 * Y.unsqueeze(1) * W.sign())
    torch.testing.assert_close(loss(moved), torch.log1p(torch.exp(-(Y * (X @ W) - 0.25 * W.abs().sum()))))


@pytest.mark.parametrize("attack", [PGD(radius=0.25), FGSM(radius=0.25, random_start=True)])
def test_of_a_linear_model_the_others_arrive_there_too(attack: Perturbation) -> None:
    """But for the weight of 0, where a random start stays where it is."""
    worst, moved = X - 0.25 * Y.unsqueeze(1) * W.sign(), attack.perturbed(X, gradient, noise())
    moving = W != 0
    if isinstance(attack, PGD):  # 7 steps of 2.5 ε / 7 cross the cube; one of 1.25 ε may not
        torch.testing.assert_close(moved[:, moving], worst[:, moving])
    assert (loss(moved) > loss(X)).all()
    assert (loss(moved) <= loss(worst) + 1e-12).all()


def test_one_step_of_pgd_is_fgsm() -> None:
    for step in (0.25, 1.0):
        one = PGD(radius=0.25, step=step, steps=1, random_start=False, low=0.0, high=1.0)
        fgsm = FGSM(radius=0.25, low=0.0, high=1.0)
        assert torch.equal(one.perturbed(X, gradient, silent), fgsm.perturbed(X, gradient, silent))


def test_two_steps_by_hand() -> None:
    """On the loss x² from 0.1: up by 0.06 to 0.16, and to 0.2, where the cube ends."""
    x = torch.tensor([[0.1]])
    moved = PGD(radius=0.1, step=0.06, steps=2, random_start=False).perturbed(x, lambda at: 2 * at, silent)
    torch.testing.assert_close(moved, torch.tensor([[0.2]]))


def test_the_gradient_after_a_random_start_is_the_one_there() -> None:
    """The loss (x − 0.5)² falls on one side and rises on the other: each start goes its way."""
    x = torch.full((2, 1), 0.5)
    attack = FGSM(radius=0.4, random_start=True)
    moved = attack.perturbed(x, lambda at: 2 * (at - 0.5), lambda: torch.tensor([[0.1], [-0.1]]))
    torch.testing.assert_close(moved, torch.tensor([[0.9], [0.1]]))


@settings(max_examples=60, deadline=None)
@given(
    radius=st.floats(0.0, 3.0),
    low=st.none() | st.floats(-1.0, 0.4),
    high=st.none() | st.floats(0.5, 2.0),
    kind=st.sampled_from([FGSM, PGD]),
    start=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nothing_leaves_the_cube_or_the_range(
    radius: float, low: float | None, high: float | None, kind: Any, start: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((4, 3), generator=generator, dtype=torch.float64)  # some of it outside of the range
    attack = kind(radius=radius, low=low, high=high, random_start=start)
    before = x.clone()
    moved = attack.perturbed(
        x,
        lambda at: torch.randn(at.shape, generator=generator, dtype=at.dtype),
        lambda: torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1,
    )
    assert torch.equal(x, before)
    assert ((moved - x).abs() <= radius * (1 + 1e-12) + 1e-12).all()
    assert low is None or (moved >= x.clamp(max=low)).all()
    assert high is None or (moved <= x.clamp(min=high)).all()
    if radius == 0:
        assert torch.equal(moved, x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FGSM(radius=-0.1), "radius: must be at least 0 and finite, got -0.1"),
        (lambda: FGSM(radius=float("nan")), "radius: must be at least 0"),
        (lambda: PGD(radius=float("inf")), "radius: must be at least 0"),
        (lambda: PGD(radius=0.1, share=1.5), "share: must be from 0 to 1, got 1.5"),
        (lambda: FGSM(radius=0.1, share=float("nan")), "share: must be from 0 to 1"),
        (lambda: PGD(radius=0.1, step=0.0), "step: must be more than 0 and finite, got 0.0"),
        (lambda: PGD(radius=0.1, steps=0), "steps: must be at least 1, got 0"),
        (lambda: FGSM(radius=0.1, low=1.0, high=1.0), "high: must be more than low = 1.0, got 1.0"),
        (lambda: FGSM(radius=0.1, low=float("-inf")), "low: must be finite, or none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: LocalWork(adversarial=a, upload="gradient"), "takes none"),
        (lambda a: LocalWork(adversarial=a, upload="newton"), "takes none"),
        (lambda a: LocalWork(adversarial=a, objective=ModelContrast()), "compares what models find"),
        (lambda a: PerFedAvg(local=LocalWork(adversarial=a)).local_work(1), "prescribes all of its steps"),
        (lambda a: IFCA(averaging="gradients", local=LocalWork(adversarial=a)), "takes none"),
    ],
)
def test_work_without_plain_local_steps_is_refused_and_with_a_radius_of_0_it_is_not(
    make: Callable[[Perturbation], object], words: str
) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        make(FGSM(radius=0.1))
    assert "adversarial" in caught.value.where
    make(FGSM(radius=0.0))


def test_what_moves_nothing_counts_as_none() -> None:
    for idle in (FGSM(radius=0), FGSM(radius=0.1, share=0), PGD(radius=0), PGD(radius=0.1, share=0)):
        assert LocalWork(adversarial=idle).perturbation is None
    assert LocalWork(adversarial=PGD(radius=0.1)).perturbation == PGD(radius=0.1)
    assert FedSGD().local_work(1).perturbation is None


def test_each_gradient_counts() -> None:
    assert gradients_per_batch(FGSM(radius=0.1)) == 2
    assert gradients_per_batch(PGD(radius=0.1, steps=7, share=0.5)) == 5
    assert gradients_per_batch(PGD(radius=0.1, steps=7, share=0.0)) == 1
