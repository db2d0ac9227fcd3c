"""Federated averaging is the real thing: the two facts that are often told wrong, and oracles by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hanse.aggregators.mean import mean_of
from hanse.core.errors import PipelineError, SettingError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.params import Params
from hanse.core.randomness import derive_seed
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.simulation.simulate import SimulatedRun, simulate
from hanse.strategies.cyclic import CyclicTransfer
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedprox import FedProx
from hanse.strategies.fedsgd import FedSGD
from hanse.strategies.local_only import LocalOnly
from hanse.tasks.custom import module_task
from hanse.tasks.torch_task import TorchTask
from hanse.testing.fakes import make_params, make_update
from hanse.trainers.base import LocalJob, LocalResult
from hanse.trainers.resident import ResidentTrainer

Split = Sequence[Sequence[float]]


class Line(nn.Module):
    """w x + b from zero."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x[:, 0] + self.b


def line() -> TorchTask:
    return module_task(Line, "squared_error", dtype="float64")


def doubled(split: Split) -> FederatedDataset:
    """y = 2 x, shared out."""
    return FederatedDataset.from_arrays(
        {f"c{i}": (np.array(xs)[:, None], 2 * np.array(xs)) for i, xs in enumerate(split)}
    )


def run(split: Split, strategy: Any, rounds: int = 1, **fields: Any) -> SimulatedRun:
    return simulate(doubled(split), line(), strategy, rounds=rounds, **fields)


def values(run: SimulatedRun) -> list[float]:
    return run.params.numpy().tolist()


def descend(xs: Sequence[float], w: float, b: float, lr: float, steps: int) -> tuple[float, float]:
    """Full-batch gradient descent on the mean of (w x + b − 2 x)², by hand."""
    x = np.array(xs)
    for _ in range(steps):
        error = w * x + b - 2 * x
        w, b = w - lr * float(np.mean(2 * error * x)), b - lr * float(np.mean(2 * error))
    return w, b


class Slopes(nn.Module):
    """x · θ: its gradient is the mean of the rows of x, whatever θ is."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.theta


class TestTheTwoFacts:
    def slopes(self, gradients: Mapping[str, list[list[float]]], strategy: Any) -> list[float]:
        task = module_task(Slopes, loss=lambda outputs, targets: outputs.mean())
        arrays = {client: (np.array(rows), np.zeros(len(rows))) for client, rows in gradients.items()}
        return simulate(FederatedDataset.from_arrays(arrays), task, strategy, rounds=1).params.numpy().tolist()

    @pytest.mark.parametrize("weighting", ["examples", "uniform"])
    def test_gradients_are_averaged_not_added_one_after_the_other(self, weighting: Any) -> None:
        # θ ← θ − α · (1/n) Σ ∇L_i with gradients [1, 2] and [−1, −2] stays at [0, 0]; [−0.1, −0.2] is the step
        # along one of them
        opposite = {"a": [[1.0, 2.0]], "b": [[-1.0, -2.0]]}
        assert self.slopes(opposite, FedSGD(lr=0.1, weighting=weighting)) == [0.0, 0.0]
        local = LocalWork(batch_size="all", optimizer=SGD(lr=0.1))
        assert self.slopes(opposite, FedAvg(local=local, weighting=weighting)) == [0.0, 0.0]

    def test_gradients_of_unlike_clients(self) -> None:
        unlike = {"a": [[1.0, 2.0]], "b": [[-1.0, 0.0], [-1.0, 0.0], [-1.0, 4.0]]}
        # by examples: mean gradient [(1 - 3) / 4, (2 + 4) / 4] = [-0.5, 1.5]
        assert self.slopes(unlike, FedSGD(lr=0.1)) == pytest.approx([0.05, -0.15])
        # by clients: [(1 - 1) / 2, (2 + 4/3) / 2] = [0, 5/3]
        assert self.slopes(unlike, FedSGD(lr=0.1, weighting="uniform")) == pytest.approx([0.0, -1 / 6])

    def test_the_server_averages_weights_by_examples_and_overwrites_with_nobodys(self) -> None:
        split = [[1.0], [2.0, 3.0, 4.0]]
        local = LocalWork(epochs=2, batch_size="all", optimizer=SGD(lr=0.01))
        one, three = (descend(xs, 0.0, 0.0, 0.01, 2) for xs in split)
        by_examples = values(run(split, FedAvg(local=local)))
        assert by_examples == pytest.approx([(1 * a + 3 * b) / 4 for a, b in zip(one, three, strict=True)], rel=1e-12)
        uniform = values(run(split, FedAvg(local=local, weighting="uniform")))
        assert uniform == pytest.approx([(a + b) / 2 for a, b in zip(one, three, strict=True)], rel=1e-12)
        for result, own in itertools.product((by_examples, uniform), (one, three)):
            assert abs(result[0] - own[0]) > 0.01


class TestConvergence:
    @pytest.mark.parametrize("split", [[[1.0], [2.0], [3.0]], [[1.0, 2.0], [3.0]], [[1.0, 2.0, 3.0]]])
    @pytest.mark.parametrize(
        "strategy",
        [
            FedAvg(local=LocalWork(epochs=5, batch_size=1, optimizer=SGD(lr=0.05))),
            FedAvg(local=LocalWork(epochs=5, batch_size="all", optimizer=SGD(lr=0.05)), weighting="uniform"),
            FedProx(mu=0.1, local=LocalWork(epochs=5, batch_size=1, optimizer=SGD(lr=0.05))),
            FedSGD(lr=0.15),
        ],
        ids=["fedavg", "uniform", "fedprox", "fedsgd"],
    )
    def test_of_linear_regression_on_y_is_2_x(self, split: Split, strategy: Any) -> None:
        # all clients agree on w = 2, b = 0, so this is the fixed point of each, whatever the split
        assert values(run(split, strategy, rounds=250)) == pytest.approx([2.0, 0.0], abs=1e-3)


class TestReductions:
    split = ([1.0], [2.0, 3.0], [0.5, 1.5, 4.0])

    def test_fedavg_with_one_full_step_is_fedsgd(self) -> None:
        local = LocalWork(epochs=1, batch_size="all", optimizer=SGD(lr=0.05))
        for weighting in ("examples", "uniform"):
            avg = run(self.split, FedAvg(local=local, weighting=weighting), rounds=5)  # type: ignore[arg-type]
            sgd = run(self.split, FedSGD(lr=0.05, weighting=weighting), rounds=5)  # type: ignore[arg-type]
            assert values(avg) == pytest.approx(values(sgd), rel=1e-12)

    def test_fedsgd_of_one_client_is_gradient_descent(self) -> None:
        xs = [0.5, 1.5, 4.0]
        assert values(run([xs], FedSGD(lr=0.02), rounds=7)) == pytest.approx(descend(xs, 0, 0, 0.02, 7), rel=1e-12)

    def test_fedsgd_does_not_depend_on_who_holds_what(self) -> None:
        together = [[x for xs in self.split for x in xs]]
        apart = [[x] for x in together[0]]
        results = [values(run(split, FedSGD(lr=0.02), rounds=5)) for split in (self.split, together, apart)]
        assert results[1] == pytest.approx(results[0], rel=1e-12)
        assert results[2] == pytest.approx(results[0], rel=1e-12)

    def test_fedsgd_in_chunks_is_fedsgd(self) -> None:
        whole, chunks = (values(run(self.split, FedSGD(lr=0.02, batch_size=b), rounds=5)) for b in ("all", 2))  # type: ignore[arg-type]
        assert whole == pytest.approx(chunks, rel=1e-12)

    def test_fedprox_without_pull_is_fedavg_bit_for_bit(self) -> None:
        local = LocalWork(epochs=3, batch_size=1, optimizer=SGD(lr=0.03, momentum=0.5))
        prox, avg = (run(self.split, s, rounds=4) for s in (FedProx(mu=0.0, local=local), FedAvg(local=local)))
        assert prox.params.sha256() == avg.params.sha256()
        assert values(run(self.split, FedProx(mu=0.1, local=local), rounds=4)) != values(avg)

    def test_one_client_is_training_alone(self) -> None:
        xs, local = [0.5, 1.5, 4.0], LocalWork(epochs=4, batch_size="all", optimizer=SGD(lr=0.02))
        alone = descend(xs, 0, 0, 0.02, 12)
        assert values(run([xs], FedAvg(local=local), rounds=3)) == pytest.approx(alone, rel=1e-12)
        assert values(run([xs], CyclicTransfer(local=local), rounds=3)) == pytest.approx(alone, rel=1e-12)

    def test_clients_alike_are_as_one(self) -> None:
        xs, local = [0.5, 1.5], LocalWork(epochs=4, batch_size="all", optimizer=SGD(lr=0.02))
        one, five = (values(run([xs] * n, FedAvg(local=local), rounds=3)) for n in (1, 5))
        assert five == pytest.approx(one, rel=1e-12)


class TestFedProx:
    def test_second_step_is_pulled_back_by_mu(self) -> None:
        xs, lr, mu = [1.0, 2.0], 0.05, 0.8
        x, w, b = np.array(xs), 0.0, 0.0
        for _ in range(2):
            error = w * x + b - 2 * x
            w, b = w - lr * (np.mean(2 * error * x) + mu * w), b - lr * (np.mean(2 * error) + mu * b)
        local = LocalWork(epochs=2, batch_size="all", optimizer=SGD(lr=lr))
        assert values(run([xs], FedProx(mu=mu, local=local))) == pytest.approx([w, b], rel=1e-12)

    def test_a_stronger_pull_stays_nearer(self) -> None:
        local = LocalWork(epochs=20, batch_size="all", optimizer=SGD(lr=0.05))
        gone = [abs(values(run([[1.0, 2.0]], FedProx(mu=mu, local=local)))[0]) for mu in (0.0, 0.1, 1.0, 10.0)]
        assert gone == sorted(gone, reverse=True)

    @pytest.mark.parametrize("mu", [-0.1, float("nan")])
    def test_refuses_a_negative_pull(self, mu: float) -> None:
        with pytest.raises(SettingError, match="mu"):
            FedProx(mu=mu)

    def test_refuses_a_second_correction(self) -> None:
        with pytest.raises(SettingError, match="correction of its own"):
            FedProx(local=FedProx(mu=0.1).local_work(1))


class TestLocalOnly:
    def test_is_training_alone_bit_for_bit(self) -> None:
        local = LocalWork(epochs=2, batch_size=1, optimizer=SGD(lr=0.03, momentum=0.5))
        split, task = ([1.0, 2.0], [0.5, 1.5, 4.0]), line()
        result = run(split, LocalOnly(local=local), rounds=3, seed=7)
        trainer = ResidentTrainer(task)
        for i, xs in enumerate(split):
            x = np.array(xs)
            own = task.init_params(7)
            for number in (1, 2, 3):
                job = LocalJob(
                    client=f"c{i}",
                    examples=lambda x=x: Examples(x[:, None], 2 * x),  # type: ignore[misc]
                    start=own,
                    seed=derive_seed(7, "client", number, f"c{i}"),
                    personal=frozenset({"w", "b"}),
                )
                (done,) = trainer.train(local, number, [job])
                assert isinstance(done, LocalResult)
                assert done.personal is not None
                own = done.personal
            expected = trainer.evaluate(own, (f"c{i}", "x"), lambda x=x: Examples(x[:, None], 2 * x))  # type: ignore[misc]
            loss = self.train_loss(split, local, f"c{i}")
            assert loss == expected["loss"] / expected["count"]
        assert result.params.spec.size == 0
        last = result.history.last
        assert last is not None
        assert (last.bytes_up, last.bytes_down) == (0, 0)

    def train_loss(self, split: Split, local: LocalWork, client: str) -> float:
        """The client's loss on its own examples, as the run measures it."""
        arrays = {f"c{i}": (np.array(xs)[:, None], 2 * np.array(xs)) for i, xs in enumerate(split)}
        nothing = Examples(np.zeros((0, 1)), np.zeros(0))
        from hanse.data.federated import ClientData

        data = {
            name: ClientData(name, Examples(x, y), validation=nothing, test=Examples(x, y))
            for name, (x, y) in arrays.items()
        }
        result = simulate(FederatedDataset.from_clients(data), line(), LocalOnly(local=local), rounds=3, seed=7)
        last = result.history.last
        assert last is not None
        (score,) = [score for score in last.clients if score.client == client]
        return score.metrics["loss"]


class TestCyclicTransfer:
    def test_refuses_larger_cohorts(self) -> None:
        with pytest.raises(PipelineError, match=r"CyclicTransfer takes at most 1 client.*the cohort has 2"):
            run([[1.0], [2.0]], CyclicTransfer())
        state = CyclicTransfer().init(make_params([1.0]))
        two = mean_of([make_update([1.0]), make_update([2.0])], [1.0, 1.0])
        with pytest.raises(PipelineError, match="2 delivered"):
            CyclicTransfer().step(state, two)

    def test_hands_the_model_from_one_to_the_next(self) -> None:
        local, split = LocalWork(batch_size="all", optimizer=SGD(lr=0.05)), ([1.0], [2.0, 3.0])
        result = run(split, CyclicTransfer(local=local), rounds=4, cohort=1)
        w, b = 0.0, 0.0
        for record in result.history.rounds[1:]:
            (client,) = record.cohort
            w, b = descend(split[int(client[1])], w, b, 0.05, 1)
        assert values(result) == pytest.approx([w, b], rel=1e-12)


class TestOrder:
    def test_the_order_of_clients_changes_rounding_only(self) -> None:
        rng = np.random.default_rng(0)
        updates = [make_update(rng.normal(size=50) * 10.0**i, client=f"c{i}", num_examples=i + 1) for i in range(6)]
        weights = [float(update.num_examples) for update in updates]
        wanted = mean_of(updates, weights).delta.numpy()
        for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 37):
            mean = mean_of([updates[i] for i in order], [weights[i] for i in order])
            np.testing.assert_allclose(mean.delta.numpy(), wanted, rtol=1e-6)

    def test_the_same_run_twice_has_the_same_bits(self) -> None:
        local = LocalWork(epochs=2, batch_size=1)
        runs = [run([[1.0, 2.0], [0.5, 1.5]], FedAvg(local=local), rounds=3, seed=s).params for s in (1, 1, 2)]
        assert runs[0].sha256() == runs[1].sha256() != runs[2].sha256()


def test_fedsgd_averages_buffers_and_steps_along_gradients() -> None:
    arrays = {"w": np.array([1.0], np.float32), "mean": np.array([2.0], np.float32)}
    params = Params.from_arrays(arrays, buffers=["mean"])
    deltas = [params.with_vector(np.array(v, np.float32)) for v in ([-1.0, 4.0], [-3.0, 0.0])]
    aggregate = mean_of([make_update(delta) for delta in deltas], [1.0, 1.0])
    state = FedSGD(lr=0.5).step(FedSGD(lr=0.5).init(params), aggregate)
    assert state.params.numpy().tolist() == [0.0, 4.0]


@pytest.mark.parametrize(("fields", "where"), [({"lr": 0.0}, "lr"), ({"batch_size": 0}, "batch_size")])
def test_fedsgd_refuses(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingError) as caught:
        FedSGD(**fields)
    assert caught.value.where == where
