"""Opacus as the reference: the same norms and the same clipped sums on the same batch, without noise."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hanse.tasks.losses import Loss
from hanse.trainers.private.clipped_sums import ClippedSums
from hanse.trainers.private.example_gradients import added
from tests.trainers.private.models import CASES, Case, flat, trained

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own business
    opacus: Any = pytest.importorskip("opacus", reason="Opacus, the reference for clipping, is not installed")


def _sampled(module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> list[Tensor]:
    """Opacus's per-example gradients, `[n, …]` for each parameter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = opacus.GradSampleModule(module, loss_reduction="mean")
        loss(wrapped(x), y).backward()
    found = [parameter.grad_sample for parameter in trained(module)]
    wrapped.to_standard_module()
    return found


def _module(case: Case) -> nn.Module:
    """Without what Opacus 1.6 can't do: layers in place, and a padding symbol that gets no gradient."""
    module = case.module()
    for layer in module.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
        if isinstance(layer, nn.Embedding):
            layer.padding_idx = None
    return module


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "convolutions by Gram matrices", "sequence", "sequence by Gram matrices"]
)
def test_norms_and_clipped_sums_are_those_of_opacus(name: str) -> None:
    case = CASES[name]
    x, y = case.examples(6)
    each = _sampled(_module(case), case.loss, x, y)
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in each]).sum(0)
    module = _module(case)
    sums = ClippedSums(module, trained(module), case.loss)
    own = added([gradients.squares() for _, gradients in sums._pieces(x, y)])
    assert torch.allclose(own, squares, rtol=1e-9)
    bound = float(squares.sqrt().median())
    scales = (bound / (squares.sqrt() + 1e-6)).clamp(max=1.0)  # Opacus's own rule, with its 1e-6
    wanted = flat([torch.einsum("n,n...->...", scales, gradient) for gradient in each])
    assert float((flat(sums(x, y, bound)) - wanted).norm() / wanted.norm()) < 1e-5
