"""A strategy that broadcasts, keeps and uploads vectors beside the model: the whole way, killed and resumed too."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from hanse.core.aggregate import Aggregate
from hanse.core.corrections import StepContext
from hanse.core.events import ClientFailed, ClientFinished, Event, RoundFinished
from hanse.core.local_work import LocalWork
from hanse.core.messages import Broadcast
from hanse.core.optimizers import SGD, Tensor
from hanse.core.params import Params, ParamSpec
from hanse.core.protocols import Weighting
from hanse.data.federated import FederatedDataset
from hanse.data.preprocessing import Standardize
from hanse.data.split import Split
from hanse.pipeline.clip import Clip
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.recipes import plain
from hanse.rounds.journal import FileJournal
from hanse.rounds.kept_vectors import KeptInFolder
from hanse.rounds.privacy.settings import PrivacySettings
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import Poisson, Uniform
from hanse.rounds.settings import EvaluateSettings, RoundSettings
from hanse.simulation import simulate
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import SimulatedRun, run_simulation
from hanse.tasks import Classification, Linear
from hanse.testing import check_strategy


@dataclass(frozen=True)
class Variates:
    """Option II of SCAFFOLD: `g ← g − c_k + c`, and at the end `c_k⁺ = c_k − c + (w_t − w) / (lr · steps)`."""

    keeps: tuple[str, ...] = ("own",)

    def correct(self, grad: Tensor, weights: Tensor, context: StepContext) -> None:
        grad.sub_(context.kept["own"]).add_(context.received["c"])

    def finish(self, weights: Tensor, context: StepContext, *, lr: float, num_steps: int) -> Mapping[str, Tensor]:
        own = context.kept["own"]
        new = own - context.received["c"] + (context.anchor - weights) / (lr * num_steps)  # type: ignore[operator]
        change = new - own
        own.copy_(new)  # type: ignore[attr-defined]
        return {"c": change}


@dataclass(frozen=True)
class VariateState:
    params: Params
    c: Params


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1, with server learning rate 1."""

    num_clients: int = 4
    local: LocalWork = field(default_factory=lambda: LocalWork(epochs=1, batch_size=8, optimizer=SGD(lr=0.1)))
    weighting: Weighting = "uniform"

    def init(self, params: Params) -> VariateState:
        trainable = ParamSpec(tuple(t for t in params.spec.tensors if t.trainable), params.spec.dtype)
        return VariateState(params, params.select(trainable).zeros_like())

    def local_work(self, round_number: int) -> LocalWork:
        return replace(self.local, correction=Variates())

    def broadcast(self, state: VariateState, round_number: int) -> Broadcast:
        return Broadcast(state.params, {"c": state.c})

    def step(self, state: VariateState, aggregate: Aggregate) -> VariateState:
        share = aggregate.num_clients / self.num_clients
        return VariateState(state.params + aggregate.delta, state.c + share * aggregate.extras["c"])


def tables(sizes: tuple[int, ...] = (40, 60, 30, 24)) -> FederatedDataset:
    rng = np.random.default_rng(3)
    arrays = {}
    for i, size in enumerate(sizes):
        x = rng.normal(loc=3 * i, scale=1 + i, size=(size, 3)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x.sum(axis=1) > 9 * i).astype(np.int64))
    return FederatedDataset.from_arrays(arrays, split=Split(test=0.25), seed=1)


def simulation(workers: int = 1, *, dataset: FederatedDataset | None = None, **changes: object) -> Simulation:
    dataset = dataset or tables()
    strategy = Scaffold()
    settings = RoundSettings(rounds=5, seed=2, cohort=Uniform(size=2), **changes)  # type: ignore[arg-type]
    return Simulation(
        dataset=dataset,
        task=bind_task(Classification(model=Linear(), preprocess=Standardize()), dataset),
        strategy=strategy,
        pipeline=plain(weighting=strategy.weighting),
        settings=settings,
        engine=EngineSettings(workers=workers),
    )


def tables_model() -> Params:
    return simulation().task.init_params(0)


def kept(folder: Path) -> dict[str, bytes]:
    newest = (max(client.glob("round-*")) for client in (folder / "clients").iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in newest}


def test_the_strategy_is_one() -> None:
    model = tables_model()
    check_strategy(Scaffold(), params=model, extras={"c": model})


def test_the_servers_variate_is_the_mean_of_the_clients(tmp_path: Path) -> None:
    """c = (1/N) Σ c_k holds after every round when every client starts at zero: SCAFFOLD's invariant."""
    folder = new_run_folder(tmp_path, "run")
    sim = simulation()
    run = run_simulation(sim, folder=folder)
    state = FileJournal(folder).state(Scaffold().init(run.params))
    store = KeptInFolder(folder / "clients")
    own = [store.load(client, 99).get("own", run.params.zeros_like()).numpy() for client in sim.dataset.clients]
    assert np.abs(state.c.numpy()).max() > 1e-3
    np.testing.assert_allclose(state.c.numpy(), np.mean(own, axis=0), rtol=1e-4, atol=1e-6)
    # two vectors each way for each of the two clients of a round
    assert (run.history.bytes_up, run.history.bytes_down) == (5 * 2 * 2 * state.c.spec.nbytes,) * 2


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.slow
def test_the_same_bits_with_workers(tmp_path: Path, workers: int) -> None:
    runs = []
    for count in (1, workers):
        folder = new_run_folder(tmp_path, "run")
        run = run_simulation(simulation(count), folder=folder)
        runs.append((run.record.model_sha256, [r.federated for r in run.history.rounds], kept(folder)))
    assert runs[0] == runs[1]
    in_memory = [run_simulation(simulation(count)).record.model_sha256 for count in (1, workers)]
    assert in_memory == [runs[0][0]] * 2


@dataclass
class _Death:
    """Kills its process at the n-th event of a kind."""

    kind: type
    nth: int

    def __call__(self, event: Event) -> None:
        self.nth -= isinstance(event, self.kind)
        if not self.nth:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("workers", "death"),
    [(1, _Death(ClientFinished, 5)), (2, _Death(ClientFinished, 6)), (1, _Death(RoundFinished, 4))],
    ids=["within a round", "within a round, with workers", "after a commit"],
)
def test_killed_and_resumed_the_bits_are_the_same(tmp_path: Path, workers: int, death: _Death) -> None:
    whole, folder = new_run_folder(tmp_path, "whole"), new_run_folder(tmp_path, "killed")
    sha = run_simulation(simulation(), folder=whole).record.model_sha256

    def work() -> None:
        run_simulation(simulation(workers), folder=folder, sinks=(death,))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert read_run(folder).history.rounds
    resumed: SimulatedRun = _once_unlocked(folder)
    assert resumed.record.model_sha256 == sha
    assert kept(folder) == kept(whole)


def _once_unlocked(folder: Path) -> SimulatedRun:
    """Go on with a run; the workers of one that was killed hold its lock until they see that it is gone."""
    with (folder / ".lock").open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
    return run_simulation(simulation(2), folder=folder)


@pytest.mark.parametrize("workers", [1, 3])
def test_statistics_of_the_federation_are_those_of_the_pooled_rows(workers: int) -> None:
    dataset = tables()
    run = run_simulation(simulation(workers, dataset=dataset))
    rows = np.concatenate([dataset.client(client).train.x for client in dataset.clients]).astype(np.float64)
    mean, deviation = Standardize().moments(run.statistics)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, rows.std(axis=0), rtol=1e-9)
    alone = run_simulation(simulation(1, dataset=dataset))
    assert {n: v.tobytes() for n, v in run.statistics.items()} == {n: v.tobytes() for n, v in alone.statistics.items()}


class _Lame(Standardize):
    """One client's rows can't be read when sums are asked for."""

    def local_statistics(self, x: np.ndarray) -> dict[str, np.ndarray]:
        if len(x) == 45:
            raise OSError("a bad sector")
        return super().local_statistics(x)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_without_statistics_is_left_out_of_them(workers: int) -> None:
    dataset, events = tables(), list[Event]()
    lame = [client for client in dataset.clients if dataset.num_examples(client) == 45]
    assert len(lame) == 1
    others = replace(simulation(workers, dataset=dataset))
    task = bind_task(Classification(model=Linear(), preprocess=_Lame()), dataset)
    # the check before a run tries clients' statistics too, and would refuse: this is what happens to a later client
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "check_simulation", lambda _: None)
        run = run_simulation(replace(others, task=task), sinks=(events.append,))
    rows = np.concatenate([dataset.client(client).train.x for client in dataset.clients if client not in lame])
    np.testing.assert_allclose(run.statistics["count"], [len(rows)] * 3)
    np.testing.assert_allclose(run.statistics["sum"], rows.astype(np.float64).sum(axis=0), rtol=1e-12)
    assert [(e.client, e.kind) for e in events if isinstance(e, ClientFailed)] == [(lame[0], "OSError")]


def test_private_rounds_that_nobody_takes_part_in_have_all_vectors_too() -> None:
    """A strategy gets noise for each of its vectors, whoever was drawn, and in the first round as well."""
    whole = simulation()
    cohort = Poisson(rate=0.15)
    private = replace(
        whole,
        task=bind_task(Classification(model=Linear(), preprocess=None), whole.dataset),
        pipeline=Pipeline(stages=(Clip(norm=0.5),), weighting="uniform"),
        settings=RoundSettings(rounds=6, seed=2, cohort=cohort, evaluate=EvaluateSettings(clients="none")),
        privacy=PrivacySettings(mechanism=CentralGaussian(noise_multiplier=1.0), delta=1e-5),
    )
    records = run_simulation(private).history.rounds[1:]
    assert not records[0].cohort
    assert any(record.cohort for record in records)
    assert any(not record.cohort for record in records[1:])
    assert all(record.status == "finished" for record in records)
