import json
from pathlib import Path

import pytest

from tests.cli.conftest import JOB, Hanse


def test_check_says_what_a_job_would_cost_and_runs_nothing(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, "--set", 'baselines=["local"]')
    assert said.code == 0
    assert "is a job that can run" in said.out
    for words in ("42", "3, of which 3 train in a round", "504 B down, 504 B up", "local: as many rounds again"):
        assert words in said.out
    assert not Path("runs").exists()


def test_check_says_where_nothing_is_measured(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, "--set", "data.split.test=0.0")
    assert "nothing: neither examples" in said.out


def test_check_gathers_all_problems(hanse: Hanse, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(JOB.replace("mu =", "mo =").replace("clients = 3", "clients = 0").replace("wine", "whine"))
    said = hanse("check", file)
    assert said.code == 2
    assert "has 3 problems" in said.err
    for where in ("strategy.mo", "data.partition.clients", "data.use"):
        assert where in said.err


def test_check_gives_the_central_test_set(hanse: Hanse, job: Path, tmp_path: Path) -> None:
    (tmp_path / "central.py").write_text(
        "import numpy as np\nfrom hanse import Dataset, Examples\n"
        "def sets():\n    e = Examples(np.eye(6, dtype=np.float32), np.arange(6) % 2)\n"
        "    return Dataset(name='c', train=e, test=e)\n",
        encoding="utf-8",
    )
    said = hanse("check", job, "--set", "data.use=central:sets")
    assert said.code == 0, said.err
    assert "6 central test examples" in said.out


PRIVATE = (
    *("--set", "strategy={use='fedavg', weighting='uniform'}"),
    *("--set", "cohort={use='cyclic', size=1}"),
)


def test_check_and_privacy_tell_of_noise_that_spans_rounds(hanse: Hanse, job: Path) -> None:
    private = (
        *PRIVATE,
        *("--set", "task.preprocess='none'"),
        *("--set", "pipeline.stages=[{use='clip', norm=0.5}]"),
        *("--set", "privacy={mechanism={use='tree'}, budget={epsilon=4.0, delta=1e-5}}"),
    )
    said = hanse("check", job, *private)
    assert said.code == 0, said.err
    flat = " ".join(said.out.split())
    for words in ("on fresh noise, for a clip of 0.5", "charged once for all of them; the budget is ε = 4"):
        assert words in flat
    assert hanse("run", job, *private, "--no-report").code == 0
    (run,) = Path("runs").iterdir()
    said = hanse("privacy", run.name)
    assert "after 1 release" in said.out
    assert "charged once, before the first" in " ".join(said.out.split())
    refused = hanse("check", job, *private, "--set", "cohort={use='uniform', size=2}")
    assert refused.code != 0
    assert "unbounded participation" in " ".join(refused.err.split())


def test_check_and_privacy_tell_of_noise_at_the_client(hanse: Hanse, job: Path) -> None:
    private = (
        *PRIVATE,
        *("--set", "task.preprocess='none'"),
        *("--set", "pipeline.stages=[{use='local_laplace', norm=0.5}]"),
        *("--set", "privacy={budget={epsilon=4.0}}"),
    )
    said = hanse("check", job, *private)
    assert said.code == 0, said.err
    flat = " ".join(said.out.split())
    for words in ("added by each client to its own report", "whoever reads them; the budget is ε = 4 (pure)"):
        assert words in flat
    assert hanse("run", job, *private, "--no-report").code == 0
    (run,) = Path("runs").iterdir()
    assert "Of one client's own reports" in " ".join(hanse("privacy", run.name).out.split())


EXAMPLES = (
    *("--set", "strategy={use='fedavg', local={batch_size=5}}"),
    *("--set", "task.preprocess='none'"),
    *("--set", "privacy={unit='example', mechanism={use='dp_sgd', clip_norm=2.0}, budget={epsilon=4.0, delta=1e-5}}"),
)


def test_check_and_privacy_tell_of_single_examples(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, *EXAMPLES)
    assert said.code == 0, said.err
    flat = " ".join(said.out.split())
    for words in (
        "added by each client in each of its steps",
        "each clipped to 2",
        "of one example, towards everybody but its client; the budget is ε = 4",
        "costs most client `client-",
        "is in a batch with probability",
    ):
        assert words in flat, flat
    assert hanse("run", job, *EXAMPLES, "--no-report").code == 0
    (run,) = Path("runs").iterdir()
    flat = " ".join(hanse("privacy", run.name).out.split())
    assert "differ in one example of one client" in flat
    assert "How many examples each client holds is not hidden" in flat
    told = json.loads(hanse("privacy", run.name, "--json").out)
    assert (told["unit"], told["budget"]) == ("example", {"epsilon": 4.0, "delta": 1e-5})
    assert {found["neighbours"] for found in told["rounds"]} == {"zero-out-one"}
    assert told["rounds"][-1]["epsilon"] <= 4.0


def test_check_refuses_what_is_no_promise_to_examples(hanse: Hanse, job: Path) -> None:
    for change, words in (
        ("privacy.unit='exmaple'", "did you mean `example`"),
        ("privacy.mechanism={use='gaussian'}", "hides whole clients"),
        ("privacy.mechanism={use='dp_sgd', clip_norm=1.0, seed=1}", "there is no such setting"),
        ("privacy.budget={epsilon=4.0}", "a budget without delta"),
        ("task.preprocess={use='standardize', fit='client'}", "one example would change"),
        ("strategy.local={batch_size=5, example_privacy={clip_norm=1.0, noise_multiplier=1.0}}", "no ledger accounts"),
    ):
        refused = hanse("check", job, *EXAMPLES, "--set", change)
        assert refused.code != 0, change
        assert words in " ".join(refused.err.split()), refused.err


SECURE = (
    *("--set", "strategy={use='fedavg', weighting='uniform'}"),
    *("--set", "pipeline.stages=[{use='clip', norm=1.0}, {use='modular', range=1.0, bits=20}]"),
    *("--set", "task.preprocess='none'"),
)


def test_check_and_show_tell_of_secure_sums(hanse: Hanse, job: Path) -> None:
    secure = (*SECURE, "--set", "pipeline.aggregator={use='secure_sum', threshold=0.6}")
    said = hanse("check", job, *secure)
    assert said.code == 0, said.err
    flat = " ".join(said.out.split())
    assert "beside the model, its update included; it shares masks with 2 others, and 3 of 3 updates must be in" in flat
    assert "what clients measure, 4 times: each of 3 clients sends" in flat
    fitted = " ".join(hanse("check", job, *secure, "--set", "task.preprocess='auto'").out.split())
    assert "statistics of clients' inputs, once: each of 3 clients sends" in fitted
    assert hanse("run", job, *secure, "--set", "name='real'").code == 0
    told = json.loads(hanse("show", "real", "--json").out)
    assert told["metrics"]["clients"] == {}
    assert told["metrics"]["federated"]["accuracy"] > 0
    assert "the protocol was run, with keys from the job's seed" in hanse("show", "real").out
    plain = (*SECURE, "--set", "pipeline.aggregator={use='secure_sum', simulate='sum'}")
    assert hanse("run", job, *plain, "--set", "name='plain'").code == 0
    assert "simulated by a plain sum modulo 2^b: the protocol was not run" in hanse("show", "plain").out


def test_check_refuses_what_no_secure_sum_can_add_up(hanse: Hanse, job: Path) -> None:
    for changes, words in (
        ((*SECURE[:4], "pipeline.stages=[{use='top_k', share=0.1}]"), "`TopK` is not additive"),
        ((*SECURE[2:], "strategy.weighting='examples'"), "weighs clients by examples"),
        ((*SECURE, "cohort={use='uniform', size=2}"), "2 clients a round, and no sum of fewer than 3 is opened"),
        ((*SECURE, "pipeline.stages=[{use='clip', norm=1.0}]"), "and stage `Clip` makes none"),
        (
            (*SECURE, "evaluate.clients=2"),
            "evaluate.clients: 2 clients are asked, and no sum of fewer than 3",
        ),
        ((*SECURE, "baselines=['local']"), "adds up what clients measure, so that nobody sees one's"),
        ((*SECURE, "pipeline.aggregator.threshold=2.0"), "must be above 0 and at most 1"),
    ):
        *first, last = changes
        first = [change for change in first if change != "--set"]
        sets = [part for change in [*first, "pipeline.aggregator={use='secure_sum'}"] for part in ("--set", change)]
        refused = hanse("check", job, *sets, "--set", last)
        assert refused.code != 0, last
        assert words in " ".join(refused.err.split()), refused.err


def test_check_and_show_tell_of_homomorphic_sums(hanse: Hanse, job: Path) -> None:
    encrypted = (*SECURE, "--set", "pipeline.aggregator={use='homomorphic_sum'}")
    said = hanse("check", job, *encrypted)
    assert said.code == 0, said.err
    flat = " ".join(said.out.split())
    for words in (
        "the key that clients share",
        "3 of them decrypt the sum, and 3 of 3 updates must be in",
        "to encrypt at a client",
    ):
        assert words in flat
    assert hanse("run", job, *encrypted, "--set", "name='encrypted'", "--rounds", "1").code == 0
    assert "homomorphic encryption (bfv) was run, with keys from the operating system" in " ".join(
        hanse("show", "encrypted").out.split()
    )
    for change, words in (
        ("scheme='ckks'", "must not return to the server"),
        ("scheme='bvf'", "did you mean `bfv`"),
        ("seed=1", "pipeline.aggregator.seed: encryption takes no seed"),
        ("key_bits=4096", "is Paillier's"),
    ):
        refused = hanse("check", job, *SECURE, "--set", f"pipeline.aggregator={{use='homomorphic_sum', {change}}}")
        assert refused.code != 0, change
        assert words in " ".join(refused.err.split()), refused.err
    seeded = hanse("check", job, *SECURE, "--set", "pipeline.aggregator={use='secure_sum', seed=1}")
    assert "pipeline.aggregator.seed: keys of a secure sum take no seed" in " ".join(seeded.err.split())


@pytest.mark.slow
def test_a_delta_that_promises_nothing_is_said(hanse: Hanse, job: Path) -> None:
    large = ("--set", "privacy.budget.delta=0.5")
    assert "it would allow telling all about one example" in " ".join(
        hanse("check", job, *EXAMPLES, *large).out.split()
    )
    assert "take care" not in hanse("check", job, *EXAMPLES).out


def test_a_private_job_is_not_said_to_be_measured_at_clients(hanse: Hanse, job: Path) -> None:
    assert "neither examples that clients keep back" in " ".join(hanse("check", job, *EXAMPLES).out.split())


def test_an_impossible_budget_is_named_by_its_path(hanse: Hanse, job: Path) -> None:
    said = hanse("check", job, *EXAMPLES, "--set", "privacy.budget.epsilon=0")
    assert (said.code, "privacy.budget.epsilon: must be above 0 and finite" in said.err) == (2, True)


def test_a_run_whose_noise_spans_rounds_keeps_its_length(hanse: Hanse, job: Path) -> None:
    spans = (
        *(
            "--set",
            "strategy.weighting='uniform'",
            "--set",
            "task.preprocess='none'",
            "--set",
            "cohort={use='cyclic', size=1}",
        ),
        *("--set", "pipeline.stages=[{use='clip', norm=0.5}]"),
        *("--set", "privacy={mechanism={use='tree'}, budget={epsilon=8.0, delta=1e-5}}"),
    )
    said = hanse("run", job, *spans, "--no-report")
    assert said.code == 0, said.err
    (run,) = Path("runs").iterdir()
    before = (run / "job.toml").read_bytes()
    said = hanse("resume", run.name, "--rounds", "50")
    assert (said.code, "can't be prolonged" in said.err) == (2, True), said.err
    assert (run / "job.toml").read_bytes() == before
    assert json.loads(hanse("show", run.name, "--json").out)["status"] == "finished"


def test_check_says_who_attacks_and_show_who_stood_out(hanse: Hanse, job: Path) -> None:
    attacked = (
        *("--set", "data.partition.clients=5", "--set", "task.preprocess='none'"),
        *("--set", "pipeline.aggregator={use='robust', rule='median', attackers=1, watch={quarantine_after=2}}"),
        *("--set", "attack={use='scaled', factor=50.0, members={count=1, from_round=2}}"),
    )
    said = hanse("check", job, *attacked)
    assert said.code == 0, said.err
    assert "scaled by 1 of 5 clients, simulated, from round 2 on" in said.out
    assert "simulated" not in hanse("check", job).out
    assert hanse("run", job, *attacked, "--set", "name='attacked'", "--no-report").code == 0
    said = hanse("show", "attacked")
    assert "stood out" in said.out
    assert "times the median client's); 1 not asked any more since round 4" in " ".join(said.out.split())
    assert hanse("run", job, "--set", "name='plain'", "--no-report").code == 0
    assert "stood out" not in hanse("show", "plain").out


@pytest.mark.parametrize(
    ("attackers", "told"),
    [
        ("0.4", "Median, for up to 1 attacker among 3 clients of a round"),
        ("0.2", "Median, for up to 1 attacker among 3 clients of a round"),
        ("0", "Median, for no attacker"),
    ],
)
def test_check_says_how_many_attackers_a_rule_is_for(hanse: Hanse, job: Path, attackers: str, told: str) -> None:
    said = hanse("check", job, "--set", f"pipeline.aggregator={{use='robust', rule='median', attackers={attackers}}}")
    assert said.code == 0, said.err
    assert told in " ".join(said.out.split())
