"""Robust rules over secure sums of groups, in whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.aggregators.hidden_round import SumRound
from hanse.aggregators.robust.average import Average
from hanse.aggregators.robust.columns import Median, TrimmedMean
from hanse.aggregators.robust.fltrust import FLTrust
from hanse.aggregators.robust.sums_of_groups import SumsOfGroups
from hanse.aggregators.secure_sum import SecureSum
from hanse.aggregators.sum import Sum
from hanse.attacks.members import Members
from hanse.attacks.multiples import Scaled
from hanse.core.errors import HanseError, PipelineError, SettingError, TooFewClientsError
from hanse.core.local_work import LocalWork
from hanse.core.optimizers import SGD
from hanse.core.sum_layout import Layout, Part
from hanse.data.federated import FederatedDataset
from hanse.data.split import Split
from hanse.pipeline.clip import Clip
from hanse.pipeline.gaussian import CentralGaussian
from hanse.pipeline.modular import Modular
from hanse.pipeline.pipeline import Pipeline
from hanse.rounds.run_folder import new_run_folder
from hanse.rounds.secure_sum import secure_sum_in_words
from hanse.rounds.selection import Poisson
from hanse.rounds.settings import RoundSettings
from hanse.simulation.attack.placed import PlacedAttack
from hanse.simulation.engine import EngineSettings
from hanse.simulation.parts import Simulation, bind_task
from hanse.simulation.simulate import SimulatedRun, run_simulation
from hanse.simulation.stragglers import Stragglers
from hanse.strategies.fedavg import FedAvg
from hanse.tasks import Classification, Linear

LOCAL = LocalWork(epochs=1, batch_size="all", optimizer=SGD(lr=0.5))
STAGES = (Clip(norm=1.0), Modular(bits=24, range=1.0))
PLAIN = SecureSum(simulate="sum", min_survivors=2)


def groups(**settings: Any) -> SumsOfGroups:
    return SumsOfGroups(**({"groups": 3, "rule": Median(), "attackers": 1, "sum": PLAIN} | settings))


def simulation(aggregator: Any, *, rounds: int = 2, **others: Any) -> Simulation:
    rng = np.random.default_rng(5)
    arrays = {}
    for i in range(9):
        x = rng.normal(size=(40, 4)).astype(np.float32)
        arrays[f"site-{i}"] = (x, (x[:, 0] > 0).astype(np.int64))
    dataset = FederatedDataset.from_arrays(arrays, split=Split(test=0.25), seed=1)
    strategy = FedAvg(local=LOCAL, weighting="uniform")
    found = Simulation(
        dataset=dataset,
        task=bind_task(Classification(model=Linear(), preprocess=None), dataset),
        strategy=strategy,
        pipeline=Pipeline(stages=STAGES, aggregator=aggregator, weighting="uniform"),
        settings=RoundSettings(rounds=rounds, seed=2),
    )
    return replace(found, **others)


def run(given: Simulation, folder: Path | None = None) -> SimulatedRun:
    return run_simulation(given, folder=folder)


def test_the_average_of_equal_groups_is_the_secure_sums_mean() -> None:
    grouped = run(simulation(groups(rule=Average(), attackers=0)))
    whole = run(simulation(PLAIN))
    assert np.allclose(grouped.params.numpy(), whole.params.numpy(), atol=1e-6)
    last, other = grouped.history.rounds[-1], whole.history.rounds[-1]
    assert (last.num_updates, last.num_examples) == (other.num_updates, other.num_examples) == (9, 270)
    assert last.train == pytest.approx(other.train)
    assert last.measured["groups"] == 3
    assert [verdict.client for verdict in last.verdicts] == ["group 0", "group 1", "group 2"]


def test_the_protocol_gives_what_the_plain_sum_does() -> None:
    real = run(simulation(groups(sum=SecureSum(min_survivors=2, threshold=1.0)), rounds=1))
    plain = run(simulation(groups(sum=replace(PLAIN, threshold=1.0)), rounds=1))
    assert real.params.sha256() == plain.params.sha256()
    assert real.history.rounds[1].bytes_up > plain.history.rounds[1].bytes_up > 0


def test_one_attacker_spoils_one_group_of_three_and_not_their_median() -> None:
    attack = PlacedAttack(attack=Scaled(factor=-50.0), members=Members(clients=("site-4",)))
    loose = (Clip(norm=100.0), Modular(bits=32, range=100.0))

    def moved(aggregator: Any, hostile: PlacedAttack | None) -> np.ndarray:
        given = simulation(aggregator, rounds=1, attack=hostile)
        pipeline = replace(given.pipeline, stages=loose)
        return run(replace(given, pipeline=pipeline)).params.numpy() - given.task.init_params(2).numpy()

    honest = moved(groups(), None)
    assert np.linalg.norm(moved(groups(), attack) - honest) < 0.5 * np.linalg.norm(honest)
    assert np.linalg.norm(moved(PLAIN, attack) - honest) > 2 * np.linalg.norm(honest)


def test_workers_and_kills_change_nothing(tmp_path: Path) -> None:
    given = simulation(groups(rule=TrimmedMean()), rounds=3)
    whole = run(given).params.sha256()
    assert run(replace(given, engine=EngineSettings(workers=2))).params.sha256() == whole
    folder = new_run_folder(tmp_path, "run")
    run(replace(given, settings=RoundSettings(rounds=1, seed=2)), folder)
    assert run(given, folder).params.sha256() == whole


def test_a_group_of_which_too_few_came_does_not_count() -> None:
    few = simulation(
        groups(groups=4, rule=Median(), sum=replace(PLAIN, threshold=1.0)), stragglers=Stragglers(fraction=0.1)
    )
    records = run(few).history.rounds
    assert [record.measured["groups"] for record in records[1:]] == [3, 3]


def test_too_few_groups_abandon_the_round() -> None:
    few = simulation(groups(sum=replace(PLAIN, threshold=1.0)), stragglers=Stragglers(fraction=0.1))
    record = run(few).history.rounds[1]
    assert record.status == "abandoned"
    assert "the secure sum needs 9" in record.note


def test_fewer_groups_than_the_rule_needs_are_not_combined() -> None:
    given = SumRound(round=1, seed=2, clients=tuple("abcdefghi"), bits=24, least=2)
    with pytest.raises(
        TooFewClientsError, match="0 of 3 groups were opened, and rule `Median` needs 3 for 1 attackers"
    ):
        groups().in_round(given).combined([])


def test_more_groups_than_clients_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"9 clients a round can't be in 10 groups|no sum of fewer than"):
        run(simulation(groups(groups=10)))


def test_groups_of_one_are_refused() -> None:
    with pytest.raises(PipelineError, match="9 clients a round are alone in each of 9 groups"):
        run(simulation(groups(groups=9)))


def test_a_random_cohort_that_is_too_small_for_the_groups_abandons_its_round() -> None:
    settings = RoundSettings(rounds=30, seed=2, cohort=Poisson(rate=0.5))
    rounds = run(simulation(groups(), settings=settings)).history.rounds[1:]
    small = [record for record in rounds if len(record.cohort) < 3]
    assert small
    assert all(record.status == "abandoned" for record in small)
    assert any(record.status == "finished" for record in rounds)


def test_the_cost_says_how_many_updates_of_the_cohort_must_be_in() -> None:
    given = SumRound(round=1, seed=2, clients=tuple("abcdefghi"), bits=24, least=2)
    sizes = groups().sizes(given, Layout((Part("update", 4, 24),)), name_bytes=1)
    assert sizes.survivors == 6  # two in each of the three groups that the rule needs


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"groups": 2}, "at least 3 are needed"),
        ({"groups": 0}, "must be at least 1"),
        ({"attackers": -1}, "must be at least 0"),
        ({"rule": Average()}, "no number of groups"),
        ({"rule": FLTrust()}, "needs more than the round's sums"),
        ({"sum": Sum()}, "hides no single update"),
        ({"sum": SecureSum(expected=9.0)}, "whole cohort"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        groups(**settings)


def test_one_sum_of_the_cohort_is_private_and_groups_are_not() -> None:
    with pytest.raises(HanseError, match="opens one of each group"):
        Pipeline(
            stages=(Clip(norm=1.0), Modular(bits=24, range=1.0)),
            aggregator=groups(),
            weighting="uniform",
            mechanism=CentralGaussian(noise_multiplier=1.0),
        )


def test_the_record_says_how_groups_were_summed() -> None:
    job = {"pipeline": {"aggregator": {"use": "sums_of_groups", "groups": 3, "sum": {"use": "secure_sum"}}}}
    assert secure_sum_in_words(job).startswith("one for each of 3 groups: the protocol was run")
