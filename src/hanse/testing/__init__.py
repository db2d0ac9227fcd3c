"""For people who write parts of their own: conformance checks, and small fakes that need no framework.

Each check raises AssertionError with a sentence that says what does not hold:

    from hanse.testing import check_strategy

    def test_my_strategy() -> None:
        check_strategy(MyStrategy(beta=0.5))
"""

from hanse.testing.additive_he import check_additive_he
from hanse.testing.aggregator import check_aggregator
from hanse.testing.fakes import linear_task, make_params, make_update, tiny_federation, with_empty_client
from hanse.testing.stage import check_stage
from hanse.testing.strategy import check_strategy
from hanse.testing.trainer import check_trainer
from hanse.testing.transport import check_transport

__all__ = [
    "check_additive_he",
    "check_aggregator",
    "check_stage",
    "check_strategy",
    "check_trainer",
    "check_transport",
    "linear_task",
    "make_params",
    "make_update",
    "tiny_federation",
    "with_empty_client",
]
