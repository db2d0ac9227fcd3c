"""Dynamic loss scaling by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hanse.trainers.loss_scale import LossScale


def test_gradients_come_back_down() -> None:
    scale = LossScale(initial=8.0)
    grads = [torch.tensor([8.0, 16.0]), torch.tensor([-4.0])]
    assert scale.unscale(grads)
    assert [g.tolist() for g in grads] == [[1.0, 2.0], [-0.5]]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_overflow_halves_the_scale_and_starts_counting_anew(bad: float) -> None:
    scale = LossScale(initial=8.0, growth_interval=2)
    assert scale.unscale([torch.ones(1)])
    assert not scale.unscale([torch.ones(1), torch.tensor([bad])])
    assert scale.value == 4.0
    assert scale.unscale([torch.ones(1)])
    assert scale.value == 4.0
    assert scale.unscale([torch.ones(1)])
    assert scale.value == 8.0


def test_at_a_scale_of_one_the_overflow_is_the_gradients_own() -> None:
    scale = LossScale(initial=2.0)
    grads = [torch.tensor([math.nan])]
    assert not scale.unscale(grads)
    assert scale.value == 1.0
    assert scale.unscale(grads)
    assert scale.value == 1.0
