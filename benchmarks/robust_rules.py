"""What robust rules cost beside one product of matrices, and beside NumPy's median, in turns on one machine.

    python -m benchmarks.robust_rules --updates 100 --parameters 1663370 --repeats 3
    python -m benchmarks.robust_rules --only krum,flame

Random updates in float32, a fifth of them attackers as far as the rules know. The references are the updates' Gram
matrix as one product `A @ A.T` of a matrix that already lies there (rules get single vectors), and
`numpy.median(axis=0)`. Repetition by repetition each is timed once, so that all see the same neighbours; the least of
each counts. Memory is what NumPy and Python allocate beside the updates, at the highest, in a turn of its own.
`OMP_NUM_THREADS` says how many threads products have; the median and the trimmed mean sort on all cores in any case.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PRODUCT, MEDIAN = "A @ A.T", "numpy.median"
GOALS = {
    "krum": (PRODUCT, 2.0),
    "flame": ("krum", 2.0),
    "median": (MEDIAN, 1 / 3),
    "trimmed_mean": (MEDIAN, 1 / 3),
}
"""What a rule is held against, and how many times as long it may take."""


def rules(radius: float) -> Mapping[str, Any]:
    """By name, as far as they are there."""
    from hanse.aggregators.robust import columns
    from hanse.aggregators.robust.average import Average
    from hanse.aggregators.robust.bulyan import Bulyan
    from hanse.aggregators.robust.clipping import CentredClipping, NormBound
    from hanse.aggregators.robust.flame import Flame
    from hanse.aggregators.robust.fltrust import FLTrust
    from hanse.aggregators.robust.foolsgold import FoolsGold
    from hanse.aggregators.robust.geometric_median import GeometricMedian
    from hanse.aggregators.robust.krum import Krum, MultiKrum

    trimmed = getattr(columns, "TrimmedMean", None)
    return {
        "average": Average(),
        "krum": Krum(),
        "multi_krum": MultiKrum(),
        "flame": Flame(),
        "geometric_median": GeometricMedian(),
        "centred_clipping": CentredClipping(radius=radius),
        "norm_bound": NormBound(),
        "fltrust": FLTrust(),
        "foolsgold": FoolsGold(),
        "bulyan": Bulyan(),
        "median": columns.Median(),
        **({} if trimmed is None else {"trimmed_mean": trimmed()}),
    }


def works(updates: np.ndarray, only: set[str]) -> Mapping[str, Callable[[], object]]:
    """What is timed, by name; the references are always there."""
    from hanse.aggregators.robust.rows import Rows
    from hanse.aggregators.robust.rule import RuleRound

    vectors = list(updates)
    clients = tuple(f"site-{i:03}" for i in range(len(vectors)))

    def run(rule: Any) -> Callable[[], object]:
        def work() -> object:
            rng = np.random.default_rng(1)
            given = RuleRound(attackers=len(vectors) // 5, rng=rng, clients=clients, root=vectors[0])
            return rule.combine(Rows(vectors), given)

        return work

    found: dict[str, Callable[[], object]] = {PRODUCT: lambda: updates @ updates.T}
    chosen = {name: rule for name, rule in rules(float(updates.shape[1]) ** 0.5).items() if not only or name in only}
    if {"bulyan", "median", "trimmed_mean"} & set(chosen):
        found[MEDIAN] = lambda: np.median(updates, axis=0)
    return found | {name: run(rule) for name, rule in chosen.items()}


def peak(work: Callable[[], object]) -> float:
    """MB."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_663_370)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="rules, by name; empty for all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    rng = np.random.default_rng(0)
    updates = rng.standard_normal((given.updates, given.parameters), dtype=np.float32)
    turns = works(updates, set(filter(None, given.only.split(","))))
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(given.repeats):
        for name, work in turns.items():
            begin = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - begin)
    best = {name: min(own) for name, own in times.items()}
    memory = {name: peak(work) for name, work in turns.items()}

    print(f"{given.updates} updates of {given.parameters:,} numbers, {updates.nbytes / 1e6:,.0f} MB")
    references = [name for name in (PRODUCT, MEDIAN) if name in best]
    print(f"{'':18}{'s':>8}" + "".join(f"{'/ ' + name:>16}" for name in references) + f"{'MB beside':>11}  goal")
    for name, seconds in best.items():
        ratios = "".join(f"{seconds / best[reference]:16.2f}" for reference in references)
        print(f"{name:18}{seconds:8.3f}{ratios}{memory[name]:11.0f}  {_verdict(name, best)}")
    if given.json:
        given.json.write_text(json.dumps({"seconds": times, "megabytes": memory}, indent=1))


def _verdict(name: str, best: Mapping[str, float]) -> str:
    reference, most = GOALS.get(name, ("", 0.0))
    if reference not in best:
        return ""
    ratio = best[name] / best[reference]
    return f"{ratio:.2f} of {reference}; at most {most:.2f}: {'met' if ratio <= most else 'missed'}"


if __name__ == "__main__":
    main()
