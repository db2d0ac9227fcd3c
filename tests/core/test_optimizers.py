"""Client optimisers against `torch.optim`, by hand, and on stacks of clients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hanse.core.errors import SettingError
from hanse.core.optimizers import SGD, Adam, AdamW, Optimizer

RULES: list[tuple[Optimizer, Any]] = [
    (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    (
        SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    (SGD(lr=0.1, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1)),
    (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    (
        Adam(lr=0.01, beta1=0.5, beta2=0.9, eps=1e-4, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9), eps=1e-4, weight_decay=0.1),
    ),
    (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    (AdamW(lr=0.01, weight_decay=0.2), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.2)),
]
IDS = [f"{i}-{type(rule).__name__}" for i, (rule, _) in enumerate(RULES)]


def gradients(shape: tuple[int, ...], dtype: torch.dtype, steps: int = 20) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(steps)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("rule", "reference"), RULES, ids=IDS)
def test_equals_torch_optim(rule: Optimizer, reference: Any, dtype: torch.dtype, tolerance: float) -> None:
    start = torch.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4)
    ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
    optimizer, state = reference([theirs]), rule.init(ours)
    for step, grad in enumerate(gradients((3, 4), dtype), start=1):
        theirs.grad = grad.clone()
        optimizer.step()
        rule.update(ours, grad.clone(), state, lr=rule.lr, step=step)
        torch.testing.assert_close(ours, theirs.detach(), rtol=tolerance, atol=tolerance)
    assert (ours - start).abs().max() > 0.05


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=IDS)
def test_a_stack_of_clients_equals_each_alone(rule: Optimizer) -> None:
    stack = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    rows = [row.clone() for row in stack]
    state, states = rule.init(stack), [rule.init(row) for row in rows]
    for step, grads in enumerate(gradients((5, 7), torch.float32, 6), start=1):
        for row, grad, own in zip(rows, grads, states, strict=True):
            rule.update(row, grad.clone(), own, lr=0.03, step=step)
        rule.update(stack, grads.clone(), state, lr=0.03, step=step)
    torch.testing.assert_close(stack, torch.stack(rows), rtol=0, atol=0)


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=IDS)
def test_state_keeps_the_weights_layout_in_memory(rule: Optimizer) -> None:
    # a velocity of another layout than the kernel it belongs to makes every step a strided one
    kernel = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    assert all(part.stride() == kernel.stride() for part in rule.init(kernel).values())
    assert all(not part.any() for part in rule.init(kernel).values())


def test_sgd_by_hand() -> None:
    rule = SGD(lr=0.1, momentum=0.5)
    weights, grad = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0])
    state = rule.init(weights)
    rule.update(weights, grad.clone(), state, lr=0.1, step=1)  # v = g
    assert weights.tolist() == pytest.approx([0.8, -2.4])
    rule.update(weights, grad.clone(), state, lr=0.1, step=2)  # v = g / 2 + g
    assert weights.tolist() == pytest.approx([0.5, -3.0])


def test_plain_sgd_needs_no_state() -> None:
    assert SGD().init(torch.ones(3)) == {}


def test_adams_first_step_is_the_sign() -> None:
    # m̂ = g and v̂ = g², so the step is lr · sign(g) but for ε
    weights = torch.zeros(3)
    Adam(lr=0.1).update(weights, torch.tensor([5.0, -0.3, 1e-3]), Adam().init(weights), lr=0.1, step=1)
    assert weights.tolist() == pytest.approx([-0.1, 0.1, -0.1], rel=1e-4)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: SGD(lr=0.0), "lr"),
        (lambda: SGD(lr=-1.0), "lr"),
        (lambda: SGD(lr=float("nan")), "lr"),
        (lambda: SGD(lr=float("inf")), "lr"),
        (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: SGD(momentum=-0.1), "momentum"),
        (lambda: SGD(nesterov=True), "nesterov"),
        (lambda: SGD(weight_decay=-1.0), "weight_decay"),
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Adam(beta2=-0.1), "beta2"),
        (lambda: Adam(eps=0.0), "eps"),
        (lambda: AdamW(weight_decay=float("nan")), "weight_decay"),
    ],
)
def test_refuses_settings_outside_their_range(make: Any, where: str) -> None:
    with pytest.raises(SettingError) as caught:
        make()
    assert caught.value.where == where
