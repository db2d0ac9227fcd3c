"""Attacks in whole simulated runs: who attacks, what arrives, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.robust.aggregator import Robust
from hanse.aggregators.robust.columns import Median
from hanse.aggregators.robust.watch import Watch
from hanse.attacks.alie import ALIE
from hanse.attacks.attack import Crafts, Poisons
from hanse.attacks.backdoor import Backdoor
from hanse.attacks.fang import FangAdaptive
from hanse.attacks.free_rider import FreeRider
from hanse.attacks.labels import LabelFlip
from hanse.attacks.members import Members
from hanse.attacks.model_replacement import ModelReplacement
from hanse.attacks.multiples import Scaled, SignFlip
from hanse.core.errors import HanseError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.data.examples import Examples
from hanse.data.federated import FederatedDataset
from hanse.data.split import Split
from hanse.pipeline.pipeline import Pipeline
from hanse.pipeline.quantize import Quantize
from hanse.pipeline.sparsify import TopK
from hanse.rounds.attack_words import attack_in_words
from hanse.rounds.run_folder import new_run_folder, read_run
from hanse.rounds.selection import Uniform
from hanse.rounds.settings import RoundSettings
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import SimulatedRun, run_simulation
from hanse.simulation.stragglers import Stragglers
from hanse.strategies.fedavg import FedAvg
from hanse.strategies.fedper import FedPer
from hanse.strategies.ifca import IFCA
from hanse.tasks import Classification, Linear

LOCAL = LocalWork(epochs=1, batch_size="all", optimizer=SGD(lr=0.5))
MEDIAN = Pipeline(aggregator=Robust(rule=Median(), attackers=1))


def federation(clients: int = 5) -> FederatedDataset:
    rng = np.random.default_rng(5)
    arrays = {}
    for i in range(clients):
        x = rng.normal(size=(40, 4)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x[:, 0] > 0).astype(np.int64))
    return FederatedDataset.from_arrays(arrays, split=Split(test=0.25), seed=1)


def simulation(attack: Crafts | Poisons | None, members: Members | None = None, **others: Any) -> Simulation:
    dataset = federation()
    placed = None if attack is None else PlacedAttack(attack=attack, members=members or Members(clients=("site-1",)))
    found = Simulation(
        dataset=dataset,
        task=bind_task(Classification(model=Linear(), preprocess=None), dataset),
        strategy=FedAvg(local=LOCAL),
        pipeline=Pipeline(),
        settings=RoundSettings(rounds=2, seed=2),
        attack=placed,
    )
    return replace(found, **others)


def run(given: Simulation, folder: Path | None = None) -> SimulatedRun:
    return run_simulation(given, folder=folder)


def one_round(given: Simulation) -> np.ndarray:
    """What one round adds to the model."""
    settings = replace(given.settings, rounds=1)
    return run(replace(given, settings=settings)).params.numpy() - given.task.init_params(2).numpy()


def test_a_sign_flip_turns_one_of_five_equal_updates_around() -> None:
    honest = simulation(None)
    others = replace(honest, settings=replace(honest.settings, rounds=1))
    flipped = one_round(simulation(SignFlip()))
    alone = FederatedDataset.from_clients({"site-1": honest.dataset.client("site-1")})
    own = one_round(replace(others, dataset=alone))
    assert np.allclose(flipped, one_round(honest) - 2 / 5 * own, atol=1e-6)


def test_a_poisoned_client_trains_on_what_it_has_poisoned() -> None:
    attacked, dataset = simulation(LabelFlip()), federation()
    clients = {}
    for name in dataset.clients:
        data = dataset.client(name)
        train = Examples(data.train.x, 1 - data.train.y) if name == "site-1" else data.train
        clients[name] = replace(data, train=train)
    by_hand = replace(simulation(None), dataset=FederatedDataset.from_clients(clients))
    assert np.allclose(one_round(attacked), one_round(by_hand), atol=1e-6)


def test_a_boost_multiplies_what_a_poisoned_client_sends() -> None:
    honest, plain = one_round(simulation(None)), one_round(simulation(LabelFlip()))
    own = federation().client("site-1")
    flipped = replace(own, train=Examples(own.train.x, 1 - own.train.y))
    poisoned = one_round(replace(simulation(None), dataset=FederatedDataset.from_clients({"site-1": flipped})))
    boosted = one_round(simulation(LabelFlip(boost=4.0)))
    assert np.allclose(boosted - plain, 3 / 5 * poisoned, atol=1e-6)
    assert not np.allclose(plain, honest, atol=1e-3)


def test_without_a_boost_a_poisoned_client_sends_what_it_encoded() -> None:
    pipeline = Pipeline(stages=(TopK(share=0.5), Quantize(bits=4)))
    given = simulation(LabelFlip(), pipeline=pipeline)
    uncrafted = simulation(Relabels(), pipeline=pipeline)
    np.testing.assert_array_equal(one_round(given), one_round(uncrafted))


def test_nobody_is_hostile_before_the_attack_begins_or_after_its_end() -> None:
    members = Members(clients=("site-1",), from_round=2, until_round=2)
    settings = RoundSettings(rounds=3, seed=2)
    records = run(simulation(SignFlip(), members, settings=settings)).history.rounds
    assert [record.attack.get("members") for record in records] == [None, 0.0, 1.0, 0.0]
    honest = run(simulation(None, settings=settings)).history.rounds
    assert records[1].federated == honest[1].federated
    assert records[2].federated != honest[2].federated


def test_members_drawn_anew_each_round_poison_in_their_rounds() -> None:
    members = Members(count=2, each_round=True)
    found = run(simulation(LabelFlip(), members))
    assert [record.attack["members"] for record in found.history.rounds[1:]] == [2.0, 2.0]
    assert found.params.sha256() != run(simulation(None)).params.sha256()


def test_those_who_are_not_asked_do_not_count() -> None:
    records = run(
        simulation(SignFlip(), Members(count=4), settings=RoundSettings(rounds=2, seed=2, cohort=Uniform(size=2)))
    ).history.rounds
    for record in records[1:]:
        assert 1 <= record.attack["members"] <= 2


@pytest.mark.parametrize(
    "attack",
    [SignFlip(), ALIE(), FangAdaptive(steps=3), FreeRider(noise=0.1), LabelFlip(), ModelReplacement(features=(3,))],
)
def test_workers_and_kills_change_nothing(attack: Any, tmp_path: Path) -> None:
    given = simulation(attack, Members(count=2), pipeline=MEDIAN)
    whole = run(given).params.sha256()
    assert run(replace(given, engine=EngineSettings(workers=2))).params.sha256() == whole
    folder = new_run_folder(tmp_path, "run")
    run(replace(given, settings=replace(given.settings, rounds=1)), folder)
    assert run(given, folder).params.sha256() == whole
    assert read_run(folder).history.rounds[2].attack["members"] == 2


def models_of(found: SimulatedRun) -> dict[str, str]:
    return {name: params.sha256() for name, params in found.groups.items()}


@pytest.mark.parametrize("stage", [Quantize(bits=8), TopK(share=0.5)])
def test_a_crafted_update_goes_through_the_stages(stage: Any) -> None:
    pipeline = Pipeline(stages=(stage,))
    assert np.isfinite(one_round(simulation(Scaled(factor=-10.0), pipeline=pipeline))).all()
    assert not np.allclose(
        one_round(simulation(Scaled(factor=-10.0), pipeline=pipeline)), one_round(simulation(None, pipeline=pipeline))
    )


def test_stragglers_do_not_attack() -> None:
    slow = Stragglers(fraction=1.0)
    records = run(simulation(LabelFlip(), stragglers=slow)).history.rounds
    assert all(record.num_updates == 0 for record in records[1:])


def test_groups_are_attacked_by_those_who_are_in_them() -> None:
    strategy = IFCA(local=LOCAL, clusters=2)
    pipeline = Pipeline(weighting=strategy.weighting)
    honest = models_of(run(simulation(None, strategy=strategy, pipeline=pipeline)))
    for attack in (SignFlip(), LabelFlip()):
        assert models_of(run(simulation(attack, strategy=strategy, pipeline=pipeline))) != honest


def test_a_backdoor_is_measured_on_examples_that_are_not_of_its_class() -> None:
    attack = Backdoor(features=(3,), value=5.0, target=0, share=1.0)
    many = simulation(attack, Members(count=4), settings=RoundSettings(rounds=30, seed=2))
    history = run(many).history
    success = [record.attack["success"] for record in history.rounds]
    assert len(success) == 31
    assert success[-1] > 0.9
    nobody = run(replace(many, attack=replace(many.attack, attack=replace(attack, share=0.0)))).history  # type: ignore[type-var]
    assert nobody.rounds[-1].attack["success"] < success[-1]
    words = attack_in_words({"attack": {"use": "backdoor"}}, history)
    assert words.startswith("backdoor, simulated; 4 hostile clients in a round; its trigger works on ")


def test_a_backdoor_is_measured_on_each_groups_model() -> None:
    attack = Backdoor(features=(3,), value=5.0, target=0, share=1.0)
    strategy = IFCA(local=LOCAL, clusters=2)
    many = simulation(attack, Members(count=4), strategy=strategy, pipeline=Pipeline(weighting=strategy.weighting))
    found = run(replace(many, settings=RoundSettings(rounds=30, seed=2)))
    clients = [many.dataset.client(name).test for name in many.dataset.clients]
    triggered = attack.triggered(Examples.concatenate(clients), num_classes=2)
    each = []
    for model in found.groups.values():
        weight, bias = sorted(model.arrays().values(), key=lambda tensor: -tensor.ndim)
        each.append(float(((triggered.x @ weight.T + bias).argmax(axis=1) == 0).mean()))
    assert found.history.rounds[-1].attack["success"] == pytest.approx(np.mean(each))


def test_a_backdoor_is_not_measured_where_clients_keep_a_part_of_the_model() -> None:
    attack = Backdoor(features=(3,), value=5.0, target=0, share=1.0)
    kept = simulation(attack, strategy=FedPer(local=LOCAL, personal=("*bias",)))
    assert "success" not in run(kept).history.rounds[-1].attack


@dataclass(frozen=True)
class Relabels:
    """Poisons as `LabelFlip` does, and crafts nothing."""

    def poison(self, examples: Examples, **told: Any) -> Examples:
        return LabelFlip().poison(examples, **told)


class Nothing:
    """Neither crafts nor poisons."""


@dataclass(frozen=True)
class Multiplies:
    """Makes two examples of each."""

    def poison(self, examples: Examples, **_: object) -> Examples:
        return Examples.concatenate([examples, examples])


@pytest.mark.parametrize(
    ("attack", "members", "told"),
    [
        (SignFlip(), Members(share=0.0), "comes to nobody"),
        (SignFlip(), Members(share=1.0), "leave some of them honest"),
        (SignFlip(), Members(share=1.0, each_round=True), "leave some of them honest"),
        (SignFlip(), Members(count=1, from_round=3), "ends after round 2: nobody would attack"),
        (SignFlip(), Members(clients=("site-7",)), "there is no client `site-7`"),
        (Backdoor(), Members(count=1), "features"),
        (Multiplies(), Members(count=1), "adds none"),
    ],
)
def test_an_attack_that_can_not_be_is_refused(attack: Any, members: Members, told: str) -> None:
    with pytest.raises(HanseError, match=told):
        run(simulation(attack, members))


def test_what_is_no_attack_is_refused() -> None:
    with pytest.raises(HanseError, match="`Nothing` is no attack"):
        PlacedAttack(attack=Nothing(), members=Members(count=1))  # type: ignore[arg-type]


def test_who_stands_out_again_and_again_is_not_asked_any_more(tmp_path: Path) -> None:
    watched = Robust(rule=Median(), attackers=1, watch=Watch(quarantine_after=2))
    given = simulation(
        Scaled(factor=100.0), pipeline=Pipeline(aggregator=watched), settings=RoundSettings(rounds=4, seed=2)
    )
    told: list[str] = []
    found = run_simulation(given, sinks=(lambda event: told.append(getattr(event, "message", "")),))
    rounds = found.history.rounds
    assert ["site-1" in record.cohort for record in rounds[1:]] == [True, True, False, False]
    standing = next(one for one in found.history.standings if one.client == "site-1")
    assert (standing.flagged, standing.left_out) == ((1, 2), 2)
    assert "times the median client's" in standing.reason
    assert sum("client `site-1` is not asked any more: stood out in 2 rounds" in line for line in told) == 1
    folder = new_run_folder(tmp_path, "run")
    run(replace(given, settings=RoundSettings(rounds=2, seed=2)), folder)
    again = run(given, folder)  # in another process, as far as anything in memory goes
    assert again.params.sha256() == found.params.sha256()
    assert read_run(folder).history.standings == found.history.standings
    assert read_run(folder).history.rounds[4].verdicts == rounds[4].verdicts


def test_the_loss_on_the_servers_examples_tells_of_a_harmful_update() -> None:
    watched = Robust(rule=Median(), attackers=1, watch=Watch())
    given = simulation(Scaled(factor=-30.0), pipeline=Pipeline(aggregator=watched))
    root = given.dataset.client("site-0").test
    clients = {name: given.dataset.client(name) for name in given.dataset.clients}
    dataset = FederatedDataset.from_clients(clients)
    dataset.root = root
    verdicts = {v.client: v.scores["loss"] for v in run(replace(given, dataset=dataset)).history.rounds[-1].verdicts}
    assert max(verdicts, key=verdicts.__getitem__) == "site-1"
    assert verdicts["site-1"] > 0.5
