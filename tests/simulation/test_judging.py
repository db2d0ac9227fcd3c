"""Aggregators that hold updates against each other, in whole runs: what they remember, draw and are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.columns import Median
from hanse.aggregators.robust.krum import Krum
from hanse.aggregators.robust.mixing import Bucketing, Mixer, NearestNeighbours
from hanse.aggregators.robust.rows import Rows
from hanse.aggregators.robust.rule import Combined, Rule, RuleRound
from hanse.aggregators.robust.watch import Watch
from hanse.attacks.members import Members
from hanse.attacks.multiples import Scaled
from hanse.core.errors import PipelineError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.data.partition.iid import IID
from hanse.data.root import put_aside
from hanse.data.split import Split
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import SimulatedRun, run_simulation
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.ifca import IFCA
from hanse.strategies.scaffold import SCAFFOLD
from hanse.tasks import Classification, Linear

LOCAL = LocalWork(epochs=1, batch_size=8, optimizer=SGD(lr=0.1))


@dataclass(frozen=True, kw_only=True)
class Inertia:
    """The mean plus half of what the last round gave."""

    remembers: bool = True

    def fewest(self, attackers: int) -> int:
        return 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        vector = rows.combined(np.full(len(rows), 1 / len(rows)))
        if "last" in given.memory:
            vector += given.memory["last"] / 2
        return Combined(vector=vector, memory={"last": vector})


@dataclass(frozen=True, kw_only=True)
class Forgetful:
    """The mean."""

    def fewest(self, attackers: int) -> int:
        return 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        weights = np.full(len(rows), 1 / len(rows))
        return Combined(vector=rows.combined(weights), weights=weights)


@dataclass(frozen=True, kw_only=True)
class RootAlone:
    """The server's own update."""

    needs_root: bool = True

    def fewest(self, attackers: int) -> int:
        return 1

    def combine(self, rows: Rows, given: RuleRound) -> Combined:
        assert given.root is not None
        return Combined(vector=given.root.astype(np.float64), measured={"length": float(np.linalg.norm(given.root))})


def numbers(rows: int = 120) -> Dataset:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return Dataset(name="numbers", train=Examples(x, (x.sum(axis=1) > 0).astype(np.int64)))


def federation(clients: int = 6, root: int = 0) -> FederatedDataset:
    dataset, aside = put_aside(numbers(), root, seed=2) if root else (numbers(), None)
    return FederatedDataset.partition(
        dataset, IID(clients=clients)(dataset, 2), split=Split(test=0.2), seed=2, root=aside
    )


def simulation(rule: Rule, *, rounds: int = 4, root: int = 0, **others: object) -> Simulation:
    dataset = federation(root=root)
    found = Simulation(
        dataset=dataset,
        task=bind_task(Classification(model=Linear(), preprocess=None), dataset),
        strategy=FedAvg(local=LOCAL),
        pipeline=Pipeline(aggregator=Robust(rule=rule, attackers=1)),
        settings=RoundSettings(rounds=rounds, seed=2, cohort=Uniform(size=5)),
    )
    return replace(found, **others)


def run(given: Simulation, folder: Path | None = None) -> SimulatedRun:
    return run_simulation(given, folder=folder)


def test_what_a_rule_remembers_survives_the_end_of_a_process(tmp_path: Path) -> None:
    whole = run(simulation(Inertia()))
    folder = new_run_folder(tmp_path, "run")
    run(simulation(Inertia(), rounds=2), folder)
    assert run(simulation(Inertia()), folder).params.sha256() == whole.params.sha256()


def test_what_a_rule_remembers_plays_a_part() -> None:
    forgotten = replace(simulation(Inertia()), pipeline=Pipeline(aggregator=Robust(rule=Forgetful(), attackers=1)))
    assert not np.allclose(run(simulation(Inertia())).params.numpy(), run(forgotten).params.numpy(), atol=1e-3)


def test_the_servers_own_update_is_trained_on_its_own_examples() -> None:
    found = run(simulation(RootAlone(), root=20, rounds=1))
    alone = simulation(RootAlone(), root=20, rounds=1)
    root = alone.dataset.root
    assert root is not None
    assert len(root) == 20
    by_hand = FederatedDataset.from_arrays({"server": (root.x, root.y)}, split=Split())
    plain = replace(alone, dataset=by_hand, pipeline=Pipeline(), settings=RoundSettings(rounds=1, seed=2))
    assert np.allclose(found.params.numpy(), run(plain).params.numpy(), atol=1e-6)
    assert found.history.rounds[1].measured["length"] > 0


def test_root_examples_are_nobody_elses() -> None:
    dataset, aside = put_aside(numbers(), 20, seed=2)
    assert len(dataset.train) == 100
    both = np.concatenate([dataset.train.x, aside.x])
    assert len(np.unique(both, axis=0)) == 120


@pytest.mark.parametrize("count", [0, 120])
def test_a_root_set_leaves_examples_to_clients(count: int) -> None:
    with pytest.raises(Exception, match="root"):
        put_aside(numbers(), count, seed=2)


def test_updates_count_alike_whatever_clients_say_of_themselves() -> None:
    """A client of many examples moves an average over all no further than one of few."""
    rng = np.random.default_rng(0)
    arrays = {
        f"site-{i}": (rng.normal(size=(n, 3)).astype(np.float32), np.arange(n) % 2) for i, n in enumerate((8, 80))
    }
    dataset = FederatedDataset.from_arrays(arrays, split=Split())
    both = simulation(Forgetful(), rounds=1, dataset=dataset)
    settings = RoundSettings(rounds=1, seed=2)
    judged = run(replace(both, settings=settings, pipeline=Pipeline(aggregator=Robust(rule=Forgetful(), attackers=0))))
    uniform = replace(both, settings=settings, strategy=FedAvg(local=LOCAL, weighting="uniform"))
    plain = run(replace(uniform, pipeline=Pipeline(weighting="uniform")))
    assert np.allclose(judged.params.numpy(), plain.params.numpy(), atol=1e-7)
    weighed = run(replace(both, settings=settings, pipeline=Pipeline()))
    assert not np.allclose(judged.params.numpy(), weighed.params.numpy(), atol=1e-4)


@pytest.mark.parametrize("mixing", [None, Bucketing(size=2), NearestNeighbours()])
def test_the_number_of_workers_plays_no_part(mixing: Mixer | None) -> None:
    aggregator = Robust(rule=Inertia(), attackers=1, mixing=mixing)
    given = simulation(Inertia(), pipeline=Pipeline(stages=(Quantize(bits=8),), aggregator=aggregator))
    assert run(given).params.sha256() == run(replace(given, engine=EngineSettings(workers=2))).params.sha256()


def refusal(given: Simulation) -> str:
    with pytest.raises(PipelineError) as caught:
        run(given)
    return str(caught.value)


def test_a_cohort_that_is_too_small_is_refused_before_anything_runs() -> None:
    aggregator = Robust(rule=Median(), attackers=3)
    assert "needs at least 7 updates for 3 attackers, and there are 5 in a round" in refusal(
        simulation(Median(), pipeline=Pipeline(aggregator=aggregator))
    )


def test_a_root_set_that_is_not_there_is_refused() -> None:
    assert "root = 100" in refusal(simulation(RootAlone()))


def test_a_server_keeps_nothing_so_strategies_whose_clients_do_are_refused() -> None:
    pipeline = Pipeline(aggregator=Robust(rule=RootAlone(), attackers=1), weighting="uniform")
    assert "SCAFFOLD" in refusal(simulation(RootAlone(), root=20, strategy=SCAFFOLD(local=LOCAL), pipeline=pipeline))


def test_a_rule_that_remembers_has_one_aggregate_a_round() -> None:
    strategy = IFCA(local=LOCAL, clusters=2)
    pipeline = Pipeline(aggregator=Robust(rule=Inertia(), attackers=1), weighting=strategy.weighting)
    assert "several aggregates" in refusal(simulation(Inertia(), strategy=strategy, pipeline=pipeline))


def test_the_servers_own_update_is_of_one_model() -> None:
    strategy = IFCA(local=LOCAL, clusters=2)
    pipeline = Pipeline(aggregator=Robust(rule=RootAlone(), attackers=1), weighting=strategy.weighting)
    assert "a model of its own" in refusal(simulation(RootAlone(), root=20, strategy=strategy, pipeline=pipeline))


def quarantining(clients: int) -> Simulation:
    """One of them is put into quarantine after its first round."""
    watched = Robust(rule=Krum(), attackers=1, watch=Watch(quarantine_after=1, smallest=0.0))
    return simulation(
        Krum(),
        rounds=6,
        dataset=federation(clients),
        pipeline=Pipeline(aggregator=watched),
        attack=PlacedAttack(attack=Scaled(factor=100.0), members=Members(clients=("client-0",))),
    )


def test_others_take_the_places_of_those_in_quarantine() -> None:
    rounds = run(quarantining(clients=6)).history.rounds[1:]
    caught = next(record.round for record in rounds if "client-0" in record.cohort)
    assert caught < 6
    assert all(len(record.cohort) == 5 and record.status == "finished" for record in rounds)
    assert not any("client-0" in record.cohort for record in rounds[caught:])


def test_a_round_that_quarantine_leaves_too_few_for_says_so() -> None:
    rounds = run(quarantining(clients=5)).history.rounds
    assert [record.status for record in rounds[1:]] == ["finished", *["abandoned"] * 5]
    assert "there are 4; the model stays as it was; 1 client in quarantine" in rounds[2].note


def in_clusters(clusters: int) -> SimulatedRun:
    """One round of five of six clients, dealt out to clusters, under a rule that needs three updates."""
    strategy = IFCA(local=LOCAL, clusters=clusters, start="clients")
    pipeline = Pipeline(aggregator=Robust(rule=Median(), attackers=1), weighting=strategy.weighting)
    return run(simulation(Median(), rounds=1, strategy=strategy, pipeline=pipeline))


def test_a_group_that_is_too_small_for_the_rule_is_told_of() -> None:
    found = in_clusters(2)
    record = found.history.rounds[1]
    assert record.status == "finished"
    stayed = record.note.split(":")[0].removeprefix("group ")
    assert "rule `Median` needs at least 3 updates for 1 attacker, and there are 2" in record.note
    first = simulation(Median()).task.init_params(2).sha256()
    assert [name for name, model in found.groups.items() if model.sha256() == first] == [stayed]


def test_a_round_all_of_whose_groups_are_too_small_is_abandoned() -> None:
    record = in_clusters(3).history.rounds[1]
    assert record.status == "abandoned"
    assert record.note.count("needs at least 3 updates") == 3
