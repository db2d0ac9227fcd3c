"""How many hostile clients a `Watch` flags, and how many honest ones, where clients hold unlike data.

    python -m benchmarks.anomaly_scores --seeds 5

Digits, 100 of them the server's, shared out by Dir(0.3) among 20 clients, all of them in each of 15 rounds, under the
coordinate-wise median; watched by the settings that stand as defaults. Flags count for each client and round, from
the first round in which means count on; the other columns count the clients that three flags or more would have sent
into quarantine.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

ATTACKS: Mapping[str, str] = {
    "sign flip": 'use = "sign_flip", members = { share = 0.2 }',
    "inner product": 'use = "ipm", epsilon = 1.0, members = { share = 0.2 }',
    "model replacement": 'use = "model_replacement", features = [0, 1, 8], members = { count = 1 }',
    "free riders, zeros": 'use = "free_rider", members = { share = 0.2 }',
    "free riders, noise": 'use = "free_rider", noise = 0.01, members = { share = 0.2 }',
    "label flip": 'use = "label_flip", members = { share = 0.2 }',
    "nobody": "",
}

JOB = """
name = "watched"
rounds = 15
data = { use = "digits", root = 100, partition = { use = "dirichlet", clients = 20, alpha = 0.3, min_size = 10 } }
task = { use = "classification", model = { use = "mlp", hidden = [64] } }
strategy = { use = "fedavg", local = { epochs = 2, batch_size = 16, optimizer = { use = "sgd", lr = 0.1 } } }
evaluate = { clients = "none", initial = false }
pipeline = { aggregator = { use = "robust", rule = "median", attackers = 0.2, watch = {} } }
"""


@dataclass
class Count:
    """Flags and verdicts; clients in quarantine and clients."""

    flags: int = 0
    verdicts: int = 0
    taken: set[tuple[int, str]] = field(default_factory=set)
    clients: set[tuple[int, str]] = field(default_factory=set)

    def shares(self) -> str:
        if not self.verdicts:
            return f"{'–':>10} {'–':>10}"
        return f"{self.flags / self.verdicts:10.1%} {len(self.taken) / len(self.clients):10.1%}"


def counts(attack: str, seeds: int) -> tuple[Count, Count]:
    """Of hostile and of honest clients."""
    import tomllib

    from hanse.aggregators.robust.aggregator import Robust
    from hanse.jobs.assemble import build_simulation
    from hanse.jobs.job import job_from_values
    from hanse.simulation.simulate import run_simulation

    hostile, honest = Count(), Count()
    for seed in range(1, seeds + 1):
        text = JOB + f"seed = {seed}\n" + (f"attack = {{ {attack} }}\n" if attack else "")
        given = build_simulation(job_from_values(tomllib.loads(text)))
        aggregator = given.pipeline.aggregator
        assert isinstance(aggregator, Robust)
        assert aggregator.watch is not None
        placed, settled = given.attack, aggregator.watch.settled
        members = placed.may_attack(given.dataset.clients, seed) if placed is not None else ()
        for standing in run_simulation(given).history.standings:
            count = hostile if standing.client in members else honest
            count.clients.add((seed, standing.client))
            count.verdicts += max(0, standing.judged - (settled - 1))  # all clients take part in each round
            count.flags += sum(at >= settled for at in standing.flagged)
            if len(standing.flagged) >= 3:
                count.taken.add((seed, standing.client))
        del given, placed
    return hostile, honest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    print(f"{'':20} {'hostile':^21} | {'honest':^21}")
    print(f"{'attack':20} {'flagged':>10} {'taken':>10} | {'flagged':>10} {'taken':>10}")
    everyone = Count()
    for name, attack in ATTACKS.items():
        hostile, honest = counts(attack, given.seeds)
        print(f"{name:20} {hostile.shares()} | {honest.shares()}", flush=True)
        everyone = replace(
            everyone,
            flags=everyone.flags + honest.flags,
            verdicts=everyone.verdicts + honest.verdicts,
            taken=everyone.taken | {(i, f"{name} {client}") for i, client in honest.taken},
            clients=everyone.clients | {(i, f"{name} {client}") for i, client in honest.clients},
        )
    print(f"{'all':20} {'':21} | {everyone.shares()}")


if __name__ == "__main__":
    main()
