"""The model of this federation: a PyTorch module like any other."""

from torch import Tensor, nn


class Net(nn.Module):
    """One hidden layer.

    `num_inputs` and `num_classes` come from the data; everything else may be set in job.toml.
    """

    def __init__(self, num_inputs: int, num_classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_inputs, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x).relu())
