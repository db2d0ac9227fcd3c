"""The plain trainer: scikit-learn estimators and users' own callables, one client after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from hanse.core.errors import EmptyClientError
from hanse.core.local_work import LocalWork
from hanse.core.messages import Sums
from hanse.core.params import Params, ParamSpec
from hanse.data.examples import Examples
from hanse.tasks.plain import PlainTask, refuse_gradient_work
from hanse.trainers.base import Key, LocalFailure, LocalJob, LocalResult
from hanse.trainers.divergence import refuse_non_finite


class PlainTrainer:
    """Hands each client's examples to the task's own training.

    Corrections and gradient uploads need gradients, which such a task does not show; they are refused.
    """

    def __init__(self, task: PlainTask) -> None:
        self._task = task

    def check(self, work: LocalWork) -> None:
        """Refuse work on gradients.

        Raises:
          TaskError: The strategy's work needs gradients.
        """
        refuse_gradient_work(work, f"the task `{self._task.name}`")

    def train(
        self, work: LocalWork, round_number: int, jobs: Iterable[LocalJob]
    ) -> Iterator[LocalResult | LocalFailure]:
        """One client after another; an error costs that client only."""
        for job in jobs:
            try:
                yield self._train_one(work, round_number, job)
            except Exception as error:  # noqa: BLE001 - a user's estimator may raise anything; it costs this client only
                yield LocalFailure(job.client, error)

    def evaluate(self, params: Params, key: Key, examples: Callable[[], Examples]) -> Sums:
        """The task's own sums; ``{"count": 0}`` where there is no example."""
        read = examples()
        return self._task.evaluate_plain(params, read.x, read.y) if len(read) else {"count": 0.0}

    def _train_one(self, work: LocalWork, round_number: int, job: LocalJob) -> LocalResult:
        began = time.perf_counter()
        self.check(work)  # whoever forgot to ask before must not get steps without privacy
        read = job.examples()
        if not len(read):
            raise EmptyClientError(f"client `{job.client}` holds no training example")
        after, sums, steps = self._task.train_plain(job.start, read.x, read.y, work, job.seed)
        delta = after - job.start
        refuse_non_finite(job.client, round_number, {"delta": delta})
        personal = None
        if job.personal:
            spec = after.spec
            personal = after.select(ParamSpec(tuple(t for t in spec.tensors if t.name in job.personal), spec.dtype))
        return LocalResult(
            client=job.client,
            delta=delta,
            num_examples=len(read),
            num_steps=steps,
            personal=personal,
            sums=sums,
            seconds=time.perf_counter() - began,
        )
