"""Sums of clipped per-example gradients against one example after another, and what must hold of them."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hanse.core.errors import NonFiniteUpdateError, TaskError
from hanse.tasks.losses import CrossEntropy, SquaredError
from hanse.trainers.private import clipped_sums
from hanse.trainers.private.clipped_sums import ClippedSums
from hanse.trainers.private.dense_backward import DenseBackward
from tests.trainers.private.models import CASES, Case, each_gradient, flat, trained


def _clipped(gradients: list[Tensor], bound: float) -> Tensor:
    return torch.stack([g * (bound / max(float(g.norm()), bound)) for g in gradients]).sum(0)


def _far(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_agrees_with_one_example_after_another(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = CASES[name]
    module, (x, y) = case.module(), case.examples(6)
    gradients = each_gradient(module, case.loss, x, y)
    bound = sorted(float(gradient.norm()) for gradient in gradients)[2]  # some are clipped and some are not
    module, x = module.to(dtype), x if case.tokens else x.to(dtype)
    sums = ClippedSums(module, trained(module), case.loss)
    assert _far(flat(sums(x, y, bound)), _clipped(gradients, bound)) < tolerance
    names = {layer: name for name, layer in module.named_modules()}
    assert sorted(names[layer] for layer in sums._forms) == sorted(case.covered)


@pytest.mark.parametrize("name", CASES)
def test_a_large_bound_leaves_the_plain_gradient(name: str) -> None:
    case = CASES[name]
    module, (x, y) = case.module(), case.examples(5)
    parameters = trained(module)
    found = flat(ClippedSums(module, parameters, case.loss)(x, y, 1e9))
    grads = torch.autograd.grad(case.loss(module(x), y) * 5, parameters, allow_unused=True)
    wanted = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)]
    assert _far(found, flat(wanted)) < 1e-9


def test_pieces_of_a_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["cnn"]
    module, (x, y) = case.module(), case.examples(7)
    whole = flat(ClippedSums(module, trained(module), case.loss)(x, y, 0.3))
    monkeypatch.setattr(clipped_sums, "_CPU_BYTES", 20_000)
    sums = ClippedSums(module, trained(module), case.loss)
    assert _far(flat(sums(x, y, 0.3)), whole) < 1e-12
    (way,) = sums._ways.values()
    assert way.at_once is not None
    assert 1 <= way.at_once < 7


def test_no_examples_are_zeros() -> None:
    case = CASES["mlp"]
    module, (x, y) = case.module(), case.examples(4)
    assert not flat(ClippedSums(module, trained(module), case.loss)(x[:0], y[:0], 1.0)).any()


def test_what_can_not_be_run_side_by_side_is_said_once() -> None:
    told: list[str] = []
    case = CASES["lstm"]
    module, (x, y) = case.module(), case.examples(3)
    sums = ClippedSums(module, trained(module), case.loss, note=told.append)
    sums(x, y, 1.0)
    sums(x, y, 1.0)
    assert len(told) == 1
    assert "one example after another" in told[0]


class _Mixing(nn.Module):
    """Takes the batch's mean away, which a model that hides examples must not."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(x - 0.5 * x.mean(0, keepdim=True))
        return out


def test_code_of_ones_own_sees_one_example_at_a_time() -> None:
    torch.manual_seed(1)
    module = _Mixing().double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    wanted = _clipped(each_gradient(module, CrossEntropy(), x, y), 0.2)
    assert _far(flat(ClippedSums(module, trained(module), CrossEntropy())(x, y, 0.2)), wanted) < 1e-12


def test_a_loss_that_mixes_examples_is_taken_of_one_at_a_time() -> None:
    module = CASES["mlp"].module()
    x, y = CASES["mlp"].examples(5)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64)
        return nn.functional.cross_entropy(outputs, targets, weight=weights)

    wanted = _clipped(each_gradient(module, loss, x, y), 0.3)  # type: ignore[arg-type]
    assert _far(flat(ClippedSums(module, trained(module), loss)(x, y, 0.3)), wanted) < 1e-12
    y[1] = -100  # PyTorch's "ignore me": a batch's mean is over the others
    wanted = _clipped(each_gradient(module, CrossEntropy(), x, y), 0.3)
    assert _far(flat(ClippedSums(module, trained(module), CrossEntropy())(x, y, 0.3)), wanted) < 1e-12


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(["mlp", "cnn", "sequence", "code of one's own"]),
    count=st.integers(0, 4),
    power=st.integers(-3, 18),
    bound=st.floats(1e-3, 1e3),
)
def test_one_more_example_moves_the_sum_by_at_most_the_bound(name: str, count: int, power: int, bound: float) -> None:
    case = CASES[name]
    module = case.module().float()
    x, y = case.examples(count + 1, seed=count + power)
    if not case.tokens:
        x = x.float()
        x[-1] *= 10.0**power
    sums = ClippedSums(module, trained(module), case.loss)
    without, with_it = (flat(sums(x[:n], y[:n], bound)).double() for n in (count, count + 1))
    rounding = 1e-5 * (count + 1)
    assert float((with_it - without).norm()) <= bound * (1 + rounding)


@pytest.mark.parametrize("power", [4, 12, 16, 18])
@pytest.mark.parametrize("tiny", [1.0, 1e-25])
def test_norms_of_huge_and_tiny_numbers_are_right(power: int, tiny: float) -> None:
    """‖x‖² overflows in float32 beyond 1e19, and the gradient of the outputs underflows below 1e-23."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 1))
    with torch.no_grad():
        module[2].weight.mul_(tiny)
    x = torch.randn(4, 3) * 10.0**power
    x[0] = 0
    y = torch.randn(4, 1)
    found = flat(ClippedSums(module, trained(module), SquaredError())(x, y, 1.0))
    exact = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 1)).double()
    exact.load_state_dict(module.state_dict())
    wanted = _clipped(each_gradient(exact, SquaredError(), x.double(), y.double()), 1.0)
    assert _far(found, wanted) < 1e-4
    assert float(found.double().norm()) <= 4.0001


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "convolutions by Gram matrices", "code of one's own", "shared layer", "branches"]
)
def test_an_example_without_a_finite_gradient_counts_as_zero(name: str, bad: float) -> None:
    case = CASES[name]
    module, (x, y) = case.module(), case.examples(4)
    sums = ClippedSums(module, trained(module), case.loss)
    wanted = flat(sums(x[[0, 2, 3]], y[[0, 2, 3]], 0.3))
    assert sums.num_zeroed == 0
    x[1].view(-1)[:] = bad
    assert _far(flat(sums(x, y, 0.3)), wanted) < 1e-12
    assert sums.num_zeroed == 1
    assert not flat(sums(x[1:2], y[1:2], 0.3)).any()
    assert sums.num_zeroed == 2


def test_one_after_another_zeroes_too() -> None:
    module = _LooksAtValues().double()
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2])
    sums = ClippedSums(module, trained(module), CrossEntropy())
    wanted = flat(sums(x[::2], y[::2], 0.2))
    x[1, 2] = math.nan
    assert torch.equal(flat(sums(x, y, 0.2)), wanted)
    assert sums.num_zeroed == 1


def test_examples_of_numbers_in_the_loss_alone_count_as_zero() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 1))
    x, y = torch.randn(3, 3), torch.tensor([[1.0], [math.nan], [2.0]])
    sums = ClippedSums(module, trained(module), SquaredError())
    assert _far(flat(sums(x, y, 1.0)), flat(sums(x[::2], y[::2], 1.0))) < 1e-6
    assert sums.num_zeroed == 1


@pytest.mark.parametrize("name", ["mlp", "code of one's own"])
def test_weights_that_are_not_finite_are_refused(name: str) -> None:
    case = CASES[name]
    module, (x, y) = case.module(), case.examples(3)
    with torch.no_grad():
        trained(module)[-1].view(-1)[0] = math.nan
    with pytest.raises(NonFiniteUpdateError, match="weights are no longer finite"):
        ClippedSums(module, trained(module), case.loss)(x, y, 1.0)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_stacks_are_written_out_with_the_same_result(activation: type[nn.Module], bias: bool) -> None:
    torch.manual_seed(5)
    layers = (nn.Flatten(), nn.Linear(6, 9, bias=bias), activation(), nn.Linear(9, 7), nn.Linear(7, 3, bias=bias))
    module = nn.Sequential(*layers).double()
    x, y = torch.randn(8, 2, 3, dtype=torch.float64), torch.randint(0, 3, (8,))
    sums = ClippedSums(module, trained(module), CrossEntropy())
    assert sums._dense is not None
    assert sums._dense.suits(x, y)
    written = flat(sums(x, y, 0.8))
    sums._dense = None
    assert _far(written, flat(sums(x, y, 0.8))) < 1e-12
    assert _far(written, _clipped(each_gradient(module, CrossEntropy(), x, y), 0.8)) < 1e-12


def test_what_dense_stacks_do_not_take_is_left_to_autograd() -> None:
    module = CASES["mlp"].module()
    x, y = CASES["mlp"].examples(3)
    dense = DenseBackward.of(module, CrossEntropy())
    assert dense is not None
    assert dense.suits(x, y)
    for inputs, targets in (
        (x, torch.tensor([0, -100, 1])), (x, torch.tensor([0, 3, 1])), (x, y.double()), (x, y[:2]),
        (x.float(), y), (x[:, :5], y), (x.view(3, 2, 3), y), (x, y.unsqueeze(1)),
    ):  # fmt: skip
        assert not dense.suits(inputs, targets)
    assert DenseBackward.of(module, SquaredError()) is None
    assert DenseBackward.of(CASES["cnn"].module(), CrossEntropy()) is None
    assert DenseBackward.of(CASES["shared layer"].module(), CrossEntropy()) is None


def test_a_model_that_answers_with_other_rows_is_refused() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    sums = ClippedSums(module, trained(module), CrossEntropy())
    with pytest.raises(TaskError, match="answered 2 examples with outputs of shape"):
        clipped_sums.total_loss(CrossEntropy(), torch.zeros(3, 3), torch.zeros(2, dtype=torch.int64))
    assert flat(sums(torch.randn(2, 2, 2), torch.tensor([0, 1]), 1.0)).norm() > 0


def test_dropout_differs_from_example_to_example() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3)).double()
    x, y = torch.ones(1, 64, dtype=torch.float64).repeat(2, 1), torch.tensor([0, 0])
    for kind in (module, _Wrapped(module)):
        sums = ClippedSums(kind, trained(kind), CrossEntropy())
        used = flat(sums(x, y, 1e9)[:1]).view(3, 64)[0] != 0
        assert 40 <= int(used.sum()) < 64  # either example leaves about half of them out; both agree by chance 2**-64


class _Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def test_the_module_is_left_as_it_was() -> None:
    case: Case = CASES["code of one's own"]
    module, (x, y) = case.module(), case.examples(3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    ClippedSums(module, trained(module), case.loss)(x, y, 1.0)
    assert all("forward" not in vars(layer) for layer in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_was_recorded_is_let_go_of_at_once() -> None:
    """A graph that held itself would stay until there is no memory left."""
    case = CASES["cnn"]
    module, (x, y) = case.module(), case.examples(3)
    sums = ClippedSums(module, trained(module), case.loss)
    recording, _ = sums._once(x, y)
    known = weakref.ref(recording)
    del recording
    assert known() is None


@pytest.mark.parametrize("name", CASES)
def test_sums_have_no_graph(name: str) -> None:
    """Weights that are moved by them would get one, which grows from step to step."""
    case = CASES[name]
    module, (x, y) = case.module(), case.examples(3)
    for found in ClippedSums(module, trained(module), case.loss)(x, y, 0.1):
        assert found.grad_fn is None
        assert not found.requires_grad


class _LooksAtValues(nn.Module):
    """Puts a tensor in the place of a buffer, and then does what can't be done for all examples side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        kept, self.last = self.last, x.detach()
        sign = 1.0 if float(x.sum()) >= 0 else -1.0
        self.last = kept
        out: Tensor = sign * self.dense(x)
        return out


def test_code_that_looks_at_values_is_run_one_example_after_another() -> None:
    module = _LooksAtValues().double()
    x, y = torch.randn(4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    told: list[str] = []
    found = flat(ClippedSums(module, trained(module), CrossEntropy(), note=told.append)(x, y, 0.2))
    assert _far(found, _clipped(each_gradient(module, CrossEntropy(), x, y), 0.2)) < 1e-12
    assert len(told) == 1


class _Renormalises(nn.Module):
    """A table whose rows are cut down where symbols ask for them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.dense = nn.Parameter(3 * torch.ones(5, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(nn.functional.embedding(x, self.table, max_norm=1.0).mean(1))
        return out


def test_weights_that_examples_change_without_noise_are_refused() -> None:
    module = _Renormalises().double()
    x, y = torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 1])
    with pytest.raises(TaskError, match="changed its parameter `table` by itself"):
        ClippedSums(module, trained(module), CrossEntropy())(x, y, 0.2)
