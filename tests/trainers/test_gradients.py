"""The short way to the engine is the long way; gradients own their memory; clipping by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hanse.trainers.gradients import Backward, clip, owned


def model() -> tuple[nn.Module, list[nn.Parameter]]:
    torch.manual_seed(0)
    module = nn.ModuleDict({"used": nn.Linear(3, 2), "spare": nn.Linear(3, 2)})
    return module, list(module.parameters())


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_torch_autograd_grad(direct: bool, dtype: torch.dtype) -> None:
    module, parameters = model()
    module.to(dtype)
    backward = Backward(parameters)
    backward._direct = direct
    x = torch.randn(5, 3, dtype=dtype)
    for _ in range(2):
        loss = lambda: module["used"](x).square().mean()  # type: ignore[index]  # noqa: E731
        wanted = torch.autograd.grad(loss(), parameters, allow_unused=True)
        for ours, theirs in zip(backward(loss()), wanted, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert torch.equal(ours, theirs)
    assert all(parameter.grad is None for parameter in parameters)


def test_this_torch_has_the_short_way() -> None:
    module, parameters = model()
    backward = Backward(parameters)
    backward(module["used"](torch.ones(1, 3)).sum())  # type: ignore[index]
    assert backward._direct


def test_another_engine_is_asked_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    module, parameters = model()

    engine = torch.autograd.Variable._execution_engine

    class Other:
        def run_backward(self, *given: object, **named: object) -> object:
            if "accumulate_grad" not in named:
                raise TypeError("this engine wants names")
            return engine.run_backward(*given, **named)

    monkeypatch.setattr(torch.autograd.Variable, "_execution_engine", Other())
    backward = Backward(parameters)
    grads = backward(module["used"](torch.ones(1, 3)).sum())  # type: ignore[index]
    assert [grad is None for grad in grads] == [False, False, True, True]
    assert not backward._direct


def test_a_loss_without_a_graph_is_torchs_own_error() -> None:
    _, parameters = model()
    with pytest.raises(RuntimeError, match="does not require grad"):
        Backward(parameters)(torch.ones(()))


def test_gradients_own_their_memory() -> None:
    a, b, c, d = (nn.Parameter(torch.ones(2)) for _ in range(4))
    found = Backward([a, b, c, d])(((a + b) * torch.tensor([1.0, 2.0])).sum() + c.sum())
    grads = owned(found, [a, b, c, d])
    for grad in grads:
        grad.mul_(10)
    assert [grad.tolist() for grad in grads] == [[10, 20], [10, 20], [10, 10], [0, 0]]


def test_clipping_by_hand() -> None:
    grads = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    clip(grads, 10.0)
    assert [grad.item() for grad in grads] == [3.0, 4.0]
    clip(grads, 1.0)
    assert [grad.item() for grad in grads] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_a_gradient_without_a_norm_is_not_made_zero(bad: float) -> None:
    grads = [torch.tensor([bad, 1.0])]
    clip(grads, 1.0)
    assert grads[0][1] == 1.0
