"""Training within a subspace, and of a smaller model: as if that alone had been there, on every trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hanse.core.errors import PipelineError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD, Adam
from hanse.core.params import Params
from hanse.core.protocols import Stage
from hanse.data.federated import FederatedDataset
from hanse.pipeline.binding import PipelineRound
from hanse.pipeline.federated_dropout import FederatedDropout
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.subspace import Subspace
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.checks import check_simulation
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import MLP, Classification
from hanse.trainers.auto import TrainerSettings

STEPS, SEED = 6, 2
trainers = pytest.mark.parametrize("trainer", ["standard", "vectorised"])


def tables(*sizes: int) -> FederatedDataset:
    rng = np.random.default_rng(3)
    arrays = {}
    for i, size in enumerate(sizes):
        x = rng.normal(size=(size, 4)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x.sum(axis=1) > 0).astype(np.int64))
    return FederatedDataset.from_arrays(arrays)


def build(
    *stages: Stage, dataset: FederatedDataset | None = None, local: LocalWork | None = None, **settings: Any
) -> Simulation:
    """Full batches, so that their order does not matter to an oracle."""
    data = dataset or tables(40)
    trainer, workers = settings.pop("trainer", "standard"), settings.pop("workers", 1)
    model = settings.pop("model", MLP(hidden=(6, 5)))
    return Simulation(
        dataset=data,
        task=bind_task(Classification(model=model, preprocess=None), data),
        strategy=FedAvg(local=local or LocalWork(epochs=STEPS, batch_size=500, optimizer=SGD(lr=0.2))),
        pipeline=Pipeline(stages=stages, **settings.pop("pipeline", {})),
        settings=RoundSettings(seed=SEED, **{"rounds": 1, **settings}),
        engine=EngineSettings(workers=workers, trainer=TrainerSettings(use=trainer)),
    )


def in_round_one(simulation: Simulation) -> tuple[Params, Any]:
    """The model before round 1, and the first stage in it."""
    before = simulation.task.init_params(SEED)
    given = PipelineRound(round=1, seed=SEED, cohort=1, states={})
    return before, simulation.pipeline.in_round(given, before.spec).stages[0]


def batch(simulation: Simulation) -> tuple[torch.Tensor, torch.Tensor]:
    train = simulation.dataset.client("site-0").train
    return torch.tensor(np.asarray(train.x)), torch.tensor(np.asarray(train.y))


def trained_factors(simulation: Simulation, *, momentum: float) -> dict[str, np.ndarray]:
    """By autograd: B of each matrix, and the vectors, are what SGD moves."""
    before, stage = in_round_one(simulation)
    bases, fixed, moved = before.with_vector(stage.bases("site-0")).arrays(), {}, {}
    for name, values in before.arrays().items():
        fixed[name] = torch.tensor(values)
        moved[name] = torch.zeros(values.shape if values.ndim == 1 else (len(values), 1), requires_grad=True)
    module: Any = simulation.task.module()  # type: ignore[attr-defined]
    x, y = batch(simulation)
    optimizer = torch.optim.SGD(list(moved.values()), lr=0.2, momentum=momentum)

    def weights() -> Mapping[str, torch.Tensor]:
        return {
            name: fixed[name] + (part if part.dim() == 1 else part @ torch.tensor(bases[name][:1]))
            for name, part in moved.items()
        }

    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(torch.func.functional_call(module, dict(weights()), (x,)), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: weight.detach().numpy() for name, weight in weights().items()}


@trainers
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_projected_steps_are_those_of_the_thin_factor(trainer: str, momentum: float) -> None:
    local = LocalWork(epochs=STEPS, batch_size=500, optimizer=SGD(lr=0.2, momentum=momentum))
    simulation = build(Subspace(rank=1), local=local, trainer=trainer)
    found, wanted = run_simulation(simulation).params.arrays(), trained_factors(simulation, momentum=momentum)
    before = simulation.task.init_params(SEED).arrays()
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.abs(values - before[name]).max() > 1e-3, name
        if values.ndim > 1:
            assert np.linalg.matrix_rank(values - before[name], tol=1e-5) == 1


def smaller(simulation: Simulation) -> tuple[Params, np.ndarray]:
    """A model that really has fewer units, trained by autograd; and which elements of the whole it has."""
    before, stage = in_round_one(simulation)
    kept, spec = stage.trained(""), stage.encoded_spec(before.spec)
    part = Params(spec, before.numpy()[kept])
    shapes = [tensor.shape for tensor in spec.tensors if len(tensor.shape) == 2]
    layers: list[nn.Module] = []
    for out, inputs in shapes:
        layers += [nn.Linear(inputs, out), nn.ReLU()]
    module = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, values in zip(module.parameters(), part.arrays().values(), strict=True):
            parameter.copy_(torch.tensor(values))
    x, y = batch(simulation)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    return part.with_vector(after.numpy()), kept


@trainers
def test_federated_dropout_trains_a_really_smaller_model(trainer: str) -> None:
    simulation = build(FederatedDropout(rate=0.5), trainer=trainer)
    assert isinstance(simulation.task, object)
    before, found = simulation.task.init_params(SEED).numpy(), run_simulation(simulation).params.numpy()
    wanted, kept = smaller(simulation)
    np.testing.assert_allclose(found[kept], wanted.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[~kept], before[~kept])  # what is left out stays, though clients saw zeros
    assert np.abs(found[kept] - before[kept]).max() > 1e-3


def test_federated_dropout_of_nothing_is_plain_training() -> None:
    found, plain = (run_simulation(build(*stages)).params.numpy() for stages in ((FederatedDropout(rate=0.0),), ()))
    np.testing.assert_allclose(found, plain, rtol=1e-6, atol=1e-7)


def test_both_ways_carry_the_smaller_model_alone() -> None:
    simulation = build(FederatedDropout(rate=0.5), rounds=3)
    _, stage = in_round_one(simulation)
    size = 4 * stage.encoded_spec(simulation.task.init_params(SEED).spec).size
    for record in run_simulation(simulation).history.rounds[1:]:
        assert (record.bytes_up, record.bytes_down) == (size, size)
        assert size < 0.6 * simulation.task.init_params(SEED).spec.nbytes


STAGES: dict[str, tuple[Stage, ...]] = {
    "subspace": (Subspace(rank=1),),
    "subspace, own": (Subspace(rank=1, own=True), Quantize(bits=8)),
    "dropout": (FederatedDropout(rate=0.4),),
    "dropout, quantize": (FederatedDropout(rate=0.4), Quantize(bits=8)),
}


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
def test_the_same_bits_with_workers(stages: tuple[Stage, ...]) -> None:
    dataset, local = tables(30, 20, 26, 17), LocalWork(epochs=1, batch_size=8, optimizer=SGD(lr=0.1))
    down = {} if "Dropout" not in type(stages[0]).__name__ else {"broadcast": (Quantize(bits=6),)}
    runs = [
        run_simulation(
            build(*stages, dataset=dataset, local=local, workers=n, rounds=3, cohort=Uniform(size=2), pipeline=down)
        )
        for n in (1, 2)
    ]
    assert runs[0].record.model_sha256 == runs[1].record.model_sha256
    assert [r.bytes_down for r in runs[0].history.rounds] == [r.bytes_down for r in runs[1].history.rounds]
    assert not any(record.failures for record in runs[0].history.rounds)


class Around(nn.Module):
    """A layer with a way around it, which no layout tells."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(num_inputs, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        found: torch.Tensor = self.last(hidden + torch.relu(self.second(hidden)))
        return found


class MakesAround:
    def build(self, schema: Any) -> nn.Module:
        return Around(4, 2)


def test_a_model_with_ways_around_layers_is_refused() -> None:
    simulation = build(FederatedDropout(rate=0.5), model=MakesAround())
    with pytest.raises(PipelineError, match="a unit goes other ways than into the next layer"):
        check_simulation(simulation)
    check_simulation(build(FederatedDropout(rate=0.5)))


@pytest.mark.parametrize(
    ("local", "says"),
    [
        (LocalWork(optimizer=Adam(lr=0.1)), "within a subspace, which `Adam` leaves"),
        (LocalWork(optimizer=SGD(weight_decay=0.1)), "`Subspace` projects gradients.*weight_decay"),
        (LocalWork(upload="gradient"), "`Subspace` restricts local steps"),
        (LocalWork(personal=("*bias",)), r"personal ones \(\*bias\) are not sent"),
    ],
)
def test_what_leaves_the_subspace_is_refused(local: LocalWork, says: str) -> None:
    simulation = build(Subspace(rank=1), local=local)
    with pytest.raises(PipelineError, match=says):
        check_simulation(simulation)
    with pytest.raises(PipelineError, match="rank 5 makes smaller"):
        check_simulation(replace(build(Subspace(rank=5))))
