"""Differential privacy of a run: settled before it starts, charged before each release.

There are four kinds: central noise that is drawn anew each round (`gaussian`), central noise that hangs together over
rounds (`tree`, `banded`) and is charged once for all of them, noise that each client adds to its own reports (a stage
such as `local_gaussian`, and no mechanism), and noise in each client's own steps, which protects single examples
(`dp_sgd`); the last two are charged before anybody is asked.

What is accounted for is the model that each round hands out. What clients say beside it (training losses, metrics on
their held-out examples) would be released without protection, so a private run neither asks for it nor keeps it. Who
was in a cohort stays in the journal: amplification by sampling holds towards those who do not see it.

`settle` reads the job's `settings` and hands each kind to a module of its own (`central`, `correlated`, `local`,
`examples`), which makes a `settled` run of it; `run` charges its rounds, and `spending` reads what a run has spent.
"""
