"""Bytes against accuracy: one job under many pipelines, each byte one that a client really produced.

    python -m benchmarks.compression --rounds 200 --json compression.json

MNIST, Dirichlet(0.5) over 100 clients, 10 a round, the 2NN (199,210 parameters), FedAvg with one epoch, batch 10,
lr 0.1 and one seed for all: differences of some tenths of a point are chance. Bytes are those of the vectors that
clients sent and were sent, with what decoding needs beside them; neither headers of files nor of HTTP.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

JOB: Mapping[str, Any] = {
    "name": "compression",
    "seed": 7,
    "data": {"use": "mnist", "partition": {"use": "dirichlet", "clients": 100, "alpha": 0.5}},
    "task": {"use": "classification", "model": {"use": "two_nn"}},
    "strategy": {"use": "fedavg", "local": {"epochs": 1, "batch_size": 10, "optimizer": {"use": "sgd", "lr": 0.1}}},
    "cohort": {"use": "uniform", "size": 10},
    "evaluate": {"every": 10, "clients": "none", "initial": False},
}

_ROTATE: Mapping[str, Any] = {"use": "rotate"}
STAGES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "plain": (),
    "quantize 8": ({"use": "quantize", "bits": 8},),
    "rotate, quantize 4": (_ROTATE, {"use": "quantize", "bits": 4}),
    "rotate, quantize 2": (_ROTATE, {"use": "quantize", "bits": 2}),
    "rotate, quantize 2, zstd": (_ROTATE, {"use": "quantize", "bits": 2}, {"use": "zstd"}),
    "sign": ({"use": "sign"},),
    "top_k 20 %": ({"use": "top_k", "share": 0.2},),
    "top_k 1 %": ({"use": "top_k", "share": 0.01},),
    "top_k 5 %, quantize 8": ({"use": "top_k", "share": 0.05}, {"use": "quantize", "bits": 8}),
    "top_k 2 %, quantize 4": ({"use": "top_k", "share": 0.02}, {"use": "quantize", "bits": 4}),
    "random_k 5 %, quantize 8": (
        {"use": "random_k", "share": 0.05, "feedback": True},
        {"use": "quantize", "bits": 8},
    ),
    "subspace of rank 32": ({"use": "subspace", "rank": 32},),
    "federated dropout 25 %": ({"use": "federated_dropout", "rate": 0.25},),
}
_DOWN: Mapping[str, Any] = {"broadcast": (_ROTATE, {"use": "quantize", "bits": 8})}
PIPELINES: Mapping[str, Mapping[str, Any]] = {
    **{name: {"stages": stages} for name, stages in STAGES.items()},
    "rotate, quantize 4, down 8 bits": {"stages": STAGES["rotate, quantize 4"], **_DOWN},
    "rotate, quantize 2, down 4 bits": {
        "stages": STAGES["rotate, quantize 2"],
        "broadcast": (_ROTATE, {"use": "quantize", "bits": 4}),
    },
    "federated dropout 25 %, quantize 8, down 8 bits": {
        "stages": (*STAGES["federated dropout 25 %"], {"use": "quantize", "bits": 8}),
        **_DOWN,
    },
}


def measure(pipeline: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """One run: accuracy over its last measurements, bytes up and down, CPU seconds."""
    from hanse.jobs.assemble import build_job
    from hanse.jobs.job import job_from_values
    from hanse.simulation.simulate import run_simulation

    values = {
        **JOB,
        "rounds": rounds,
        "pipeline": {key: [dict(stage) for stage in value] for key, value in pipeline.items()},
    }
    simulation = build_job(job_from_values(values)).simulation
    began = time.process_time()
    history = run_simulation(simulation).history
    accuracies = list(history.series("accuracy").values())
    last = accuracies[-3:]
    return {
        "accuracy": sum(last) / len(last),
        "best": max(accuracies),
        "bytes_up": float(history.bytes_up),
        "bytes_down": float(history.bytes_down),
        "cpu": time.process_time() - began,
    }


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as Markdown."""
    plain = found["plain"]
    lines = [
        "| pipeline | MB up | of plain | MB down | accuracy, last three | against plain |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        share = figures["bytes_up"] / plain["bytes_up"]
        gap = 100 * (figures["accuracy"] - plain["accuracy"])
        lines.append(
            f"| {name} | {figures['bytes_up'] / 1e6:,.1f} | 1/{1 / share:.1f} | {figures['bytes_down'] / 1e6:,.1f} "
            f"| {100 * figures['accuracy']:.2f} % | {gap:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", help=f"some of: {'; '.join(PIPELINES)}, parted by semicolons")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    wanted = [name.strip() for name in chosen.only.split(";")] if chosen.only else list(PIPELINES)
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(["plain", *wanted]):
        found[name] = measure(PIPELINES[name], chosen.rounds)
        print(f"{name}: {found[name]}", flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
