import math

import pytest
import torch
from torch import nn

from hanse.core.errors import SettingError
from hanse.tasks.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    MeanOf,
    Scaled,
    SquaredError,
    TokenCrossEntropy,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 3, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
NUMBERS = torch.randn(6, generator=GENERATOR)
TOKEN_LOGITS = torch.randn(6, 4, 3, generator=GENERATOR)
TOKENS = torch.randint(3, (6, 4), generator=GENERATOR)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (CrossEntropy(), LOGITS, LABELS),
        (CrossEntropy(label_smoothing=0.2), LOGITS, LABELS),
        (BinaryCrossEntropy(), LOGITS[:, :1], LABELS % 2),
        (SquaredError(), LOGITS[:, :1], NUMBERS),
        (SquaredError(), LOGITS, LOGITS.flip(0)),
        (AbsoluteError(), LOGITS[:, 0], NUMBERS),
        (Huber(delta=0.5), LOGITS, LOGITS.flip(0)),
        (Scaled(SquaredError(), 3.0, 2.0), LOGITS[:, :1], NUMBERS),
        (MeanOf(nn.CrossEntropyLoss()), LOGITS, LABELS),
    ],
)
def test_total_is_mean_times_examples(loss, outputs, targets):
    assert loss(outputs, targets).ndim == 0
    assert loss.total(outputs, targets).item() == pytest.approx(6 * loss(outputs, targets).item(), rel=1e-6)
    assert loss.total(outputs, targets).dtype == torch.float64


def test_tokens_are_counted_each():
    loss = TokenCrossEntropy()
    assert loss.total(TOKEN_LOGITS, TOKENS).item() == pytest.approx(24 * loss(TOKEN_LOGITS, TOKENS).item(), rel=1e-6)
    wanted = nn.CrossEntropyLoss()(TOKEN_LOGITS.reshape(24, 3), TOKENS.reshape(24))
    assert loss(TOKEN_LOGITS, TOKENS) == wanted


def test_by_hand():
    assert CrossEntropy()(torch.zeros(1, 4), torch.tensor([2])).item() == pytest.approx(math.log(4))
    assert BinaryCrossEntropy()(torch.zeros(3, 1), torch.tensor([0, 1, 1])).item() == pytest.approx(math.log(2))
    assert SquaredError()(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0])).item() == 5.0
    assert AbsoluteError()(torch.tensor([1.0, -3.0]), torch.zeros(2)).item() == 2.0
    # 0.5² / 2 and 1 · (3 − 1/2)
    assert Huber()(torch.tensor([0.5, 3.0]), torch.zeros(2)).item() == pytest.approx((0.125 + 2.5) / 2)
    assert Scaled(SquaredError(), 10.0, 2.0)(torch.tensor([[1.0]]), torch.tensor([16.0])).item() == 4.0


def test_a_column_of_outputs_is_not_spread_over_a_row_of_targets():
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 2.0])
    assert SquaredError()(outputs, targets) == 0.0


def test_no_examples_sum_to_zero():
    assert CrossEntropy().total(LOGITS[:0], LABELS[:0]) == 0.0
    assert SquaredError().total(LOGITS[:0], LOGITS[:0]) == 0.0


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_label_smoothing_is_a_share(wrong):
    with pytest.raises(SettingError, match="label_smoothing"):
        CrossEntropy(label_smoothing=wrong)


def test_huber_needs_a_width():
    with pytest.raises(SettingError, match="delta"):
        Huber(delta=0.0)
