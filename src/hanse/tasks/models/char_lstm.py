"""`CharLSTM`: the character model of the first paper on federated averaging."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from hanse.core.errors import SettingError, TaskError
from hanse.data.schema import DataSchema


@dataclass(frozen=True, kw_only=True)
class CharLSTM:
    """Each symbol embedded, then LSTM layers, then one number for each symbol that may come next.

    With the defaults and V symbols: 798,720 + 265 V parameters, 815,945 for the 65 symbols of tiny Shakespeare.
    PyTorch keeps two bias vectors a layer where the equations have one, 2,048 more in all. The paper states 866,578
    in total and not its V.

    Args:
      embedding: Numbers for a symbol, ≥ 1.
      hidden: Units a layer, ≥ 1.
      layers: LSTM layers, ≥ 1.

    References:
      McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, arXiv:1602.05629, section 3: 8 numbers a character, two
      layers of 256 units, sequences of 80 characters.
    """

    embedding: int = 8
    hidden: int = 256
    layers: int = 2

    def __post_init__(self) -> None:
        for name in ("embedding", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise SettingError(name, f"must be at least 1, got {getattr(self, name)}")

    def build(self, schema: DataSchema) -> nn.Module:
        """Layers `embedding`, `lstm`, `head`.

        Raises:
          TaskError: The data is no text.
        """
        if schema.target != "next_token" or schema.num_classes < 2:
            raise TaskError(
                f"CharLSTM needs text of at least 2 symbols; the targets are `{schema.target}` "
                f"with {schema.num_classes} symbols"
            )
        return CharLSTMNetwork(self, schema.num_classes)


class CharLSTMNetwork(nn.Module):
    """Tokens `[n, T]` to logits `[n, T, V]`."""

    def __init__(self, settings: CharLSTM, num_symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_symbols, settings.embedding)
        self.lstm = nn.LSTM(settings.embedding, settings.hidden, settings.layers, batch_first=True)
        self.head = nn.Linear(settings.hidden, num_symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits."""
        states, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.head(states)
        return logits
