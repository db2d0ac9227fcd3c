"""Every strategy keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from hanse.core.local_work import LocalWork
from hanse.strategies.cyclic import CyclicTransfer
from hanse.strategies.fedadagrad import FedAdagrad
from hanse.strategies.fedadam import FedAdam
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedprox import FedProx
from hanse.strategies.fedsgd import FedSGD
from hanse.strategies.fedyogi import FedYogi
from hanse.strategies.local_only import LocalOnly
from hanse.testing import check_strategy


@pytest.mark.parametrize(
    "strategy",
    [
        FedAvg(),
        FedAvg(weighting="uniform"),
        FedAvg(local=LocalWork(personal=("head.*",))),
        FedProx(mu=0.0),
        FedProx(mu=0.1),
        FedSGD(),
        FedAdam(),
        FedAdam(noise_corrected=True, weighting="uniform"),
        FedYogi(),
        FedAdagrad(),
        LocalOnly(),
        CyclicTransfer(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_keeps_the_contract(strategy: Any) -> None:
    check_strategy(strategy)
