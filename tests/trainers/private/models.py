"""Models of every kind that per-example gradients are made of in another way, and a loop that makes them plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hanse.tasks.losses import CrossEntropy, Loss, TokenCrossEntropy
from hanse.tasks.models.char_lstm import CharLSTM, CharLSTMNetwork

SYMBOLS = 11


@dataclass(frozen=True)
class Case:
    """A model, and examples that suit it.

    Args:
      build: Makes the module.
      shape: Of one input; whole numbers below `SYMBOLS` where it is of tokens.
      loss: What is trained on.
      tokens: Whether inputs are tokens, and each has a target.
      covered: Names of the layers whose gradients are not copied for each example.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    covered: tuple[str, ...]
    loss: Loss = CrossEntropy()
    tokens: bool = False

    def examples(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs (numbers in float64) and targets."""
        draw = torch.Generator().manual_seed(seed)
        if self.tokens:
            shape = (count, *self.shape)
            return (torch.randint(0, SYMBOLS, shape, generator=draw) for _ in range(2))  # type: ignore[return-value]
        x = torch.randn(count, *self.shape, generator=draw, dtype=torch.float64)
        return x, torch.randint(0, 3, (count,), generator=draw)

    def module(self) -> nn.Module:
        """In float64 and training mode, always with the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return self.build().double().train()


class Own(nn.Module):
    """Code of one's own, a parameter of one's own, a group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(64, 3)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        out: Tensor = self.head(h.flatten(1)) * self.scale
        return out


class TiedEmbedding(nn.Module):
    """The table of symbols is the last layer's weight, too."""

    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        self.table, self.norm, self.dense = nn.Embedding(SYMBOLS, 8, padding), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.norm(self.dense(self.table(tokens))), self.table.weight)


class Branches(nn.Module):
    """One layer used twice, one never, one with a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.mixed = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.mixed.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mixed(self.twice(torch.tanh(self.twice(x))))
        return out


def _shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, 3))


CASES: Mapping[str, Case] = {
    "mlp": Case(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3, bias=False)), (6,), ("0", "2")
    ),
    "cnn": Case(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2),
            nn.Tanh(), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(24, 3),
        ),
        (1, 10, 10),
        ("0", "3", "5", "7"),
    ),
    "convolutions by Gram matrices": Case(
        lambda: nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, (3, 2), groups=2, dilation=(1, 2)),
            nn.Flatten(), nn.Linear(128, 3),
        ),
        (8, 4, 4),
        ("0", "2", "4"),
    ),
    "sequence": Case(
        lambda: nn.Sequential(
            nn.Embedding(SYMBOLS, 8, padding_idx=0), nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, SYMBOLS)
        ),
        (7,),
        ("0", "1", "2", "4"),
        TokenCrossEntropy(),
        tokens=True,
    ),
    "sequence by Gram matrices": Case(
        lambda: nn.Sequential(nn.Embedding(SYMBOLS, 8), nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, SYMBOLS)),
        (3,),
        ("0", "1", "3"),
        TokenCrossEntropy(),
        tokens=True,
    ),
    "code of one's own": Case(Own, (1, 10, 10), ("conv", "norm", "head")),
    "tied": Case(TiedEmbedding, (4,), ("norm", "dense"), TokenCrossEntropy(), tokens=True),
    "tied, with padding": Case(
        lambda: TiedEmbedding(2), (9,), ("norm", "dense"), TokenCrossEntropy(), tokens=True
    ),
    "shared layer": Case(_shared, (6,), ("3",)),
    "branches": Case(Branches, (6,), ("never",)),
    "lstm": Case(
        lambda: CharLSTMNetwork(CharLSTM(hidden=6), SYMBOLS), (5,), ("embedding", "head"), TokenCrossEntropy(), True
    ),
}  # fmt: skip


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that are trained."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def each_gradient(module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> list[Tensor]:
    """Each example's gradient by itself, as one vector."""
    parameters = trained(module)
    found = []
    for i in range(len(x)):
        grads = torch.autograd.grad(loss(module(x[i : i + 1]), y[i : i + 1]), parameters, allow_unused=True)
        whole = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)]
        found.append(torch.cat([gradient.flatten() for gradient in whole]))
    return found


def flat(tensors: list[Tensor]) -> Tensor:
    """As one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
