"""Does a round cost more when more clients are registered? 100 of 1,000, of 10,000 and of 100,000 are sampled.

    python -m benchmarks.population --repeats 3

Every client holds 60 examples of MNIST (several clients share an example where there are more clients than it
has examples for). Each population runs in a process of its own, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POPULATIONS = (1_000, 10_000, 100_000)


def measure(population: int, rounds: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    from benchmarks.jobs import BATCH, LR, SEED, mnist
    from hanse.core.events import Event, RoundFinished
    from hanse.core.local_work import LocalWork
    from hanse.core.optimizers import SGD
    from hanse.data.federated import FederatedDataset
    from hanse.data.partition.iid import IID
    from hanse.data.schema import DataSchema
    from hanse.pipeline.recipes import plain
    from hanse.rounds.run_folder import new_run_folder
    from hanse.rounds.selection import Uniform
    from hanse.rounds.settings import EvaluateSettings, RoundSettings
    from hanse.simulation.parts import Simulation
    from hanse.simulation.simulate import run_simulation
    from hanse.strategies.fedavg import FedAvg
    from hanse.tasks import Classification, TwoNN

    data = mnist()
    began = time.perf_counter()
    shared = FederatedDataset.partition(data, IID(clients=population, examples_per_client=60)(data, SEED))
    built = time.perf_counter() - began
    simulation = Simulation(
        dataset=shared,
        task=Classification(model=TwoNN()).bind(DataSchema.of(shared)),
        strategy=FedAvg(local=LocalWork(batch_size=BATCH, optimizer=SGD(lr=LR))),
        pipeline=plain(),
        settings=RoundSettings(
            rounds=rounds, seed=SEED, cohort=Uniform(size=100), evaluate=EvaluateSettings(initial=False, every=rounds)
        ),
    )
    ends: list[float] = []

    def sink(event: Event) -> None:
        if isinstance(event, RoundFinished):
            ends.append(time.process_time())

    with tempfile.TemporaryDirectory() as out:
        run_simulation(simulation, folder=new_run_folder(Path(out), "population"), sinks=(sink,))
    rounds_taken = [after - before for before, after in itertools.pairwise(ends[1:-1])]
    return {
        "round": statistics.median(rounds_taken),
        "build": built,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.rounds)))
        return
    found: dict[int, list[dict[str, float]]] = {population: [] for population in POPULATIONS}
    for _ in range(chosen.repeats):
        for population in POPULATIONS:
            command = [sys.executable, "-m", "benchmarks.population", "--one", str(population)]
            command += ["--rounds", str(chosen.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[population].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'clients':>8}{'CPU s a round':>15}{'against 1,000':>15}{'build s':>9}{'peak MB':>9}")
    for population, runs in found.items():
        ratio = statistics.median(
            run["round"] / first["round"] for run, first in zip(runs, found[POPULATIONS[0]], strict=True)
        )
        middle = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        print(f"{population:8,}{middle['round']:15.3f}{ratio:15.2f}{middle['build']:9.2f}{middle['peak_mb']:9.0f}")


if __name__ == "__main__":
    main()
