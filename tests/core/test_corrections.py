"""FedProx's gradient correction by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hanse.core.corrections import Proximal, StepContext
from hanse.core.errors import SettingError


def test_proximal_adds_mu_times_the_way_gone() -> None:
    grad, weights, anchor = torch.tensor([1.0, -1.0]), torch.tensor([3.0, 0.5]), torch.tensor([1.0, 1.0])
    Proximal(mu=0.5).correct(grad, weights, StepContext(anchor))
    assert grad.tolist() == [2.0, -1.25]
    assert weights.tolist() == [3.0, 0.5]
    assert anchor.tolist() == [1.0, 1.0]


def test_proximal_is_the_gradient_of_its_term() -> None:
    weights, anchor = torch.randn(6, dtype=torch.float64, requires_grad=True), torch.randn(6, dtype=torch.float64)
    (0.3 / 2 * (weights - anchor).square().sum()).backward()
    grad = torch.zeros(6, dtype=torch.float64)
    Proximal(mu=0.3).correct(grad, weights.detach(), StepContext(anchor))
    torch.testing.assert_close(grad, weights.grad, rtol=1e-12, atol=1e-12)


def test_proximal_on_a_stack_equals_row_by_row() -> None:
    grads, weights, anchors = (torch.randn(3, 4) for _ in range(3))
    rows = [row.clone() for row in grads]
    for grad, weight, anchor in zip(rows, weights, anchors, strict=True):
        Proximal(mu=0.7).correct(grad, weight, StepContext(anchor))
    Proximal(mu=0.7).correct(grads, weights, StepContext(anchors))
    torch.testing.assert_close(grads, torch.stack(rows), rtol=0, atol=0)


def test_proximal_keeps_and_uploads_nothing() -> None:
    rule = Proximal(mu=1.0)
    assert rule.keeps == ()
    assert rule.finish(torch.ones(2), StepContext(torch.ones(2)), lr=0.1, num_steps=3) == {}


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf])
def test_refuses(mu: float) -> None:
    with pytest.raises(SettingError, match="mu"):
        Proximal(mu=mu)
