"""What releases cost: golden values, oracles in closed form or by integration, and refusals in place of guesses."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as google
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from hanse.core.errors import MissingExtraError, PrivacyError, UnknownEventError
from hanse.privacy.accountant import Spent, account, delta, epsilon, epsilon_by_round, round_grid
from hanse.privacy.events import (
    AdaptiveClipBits,
    Composed,
    CorrelatedGaussian,
    DiscreteGaussian,
    Event,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    LocalEpsilon,
    NonPrivate,
    PoissonSampled,
    Repeated,
    Skellam,
)
from hanse.privacy.flatten import flatten
from hanse.privacy.gaussian_curve import gaussian_delta
from hanse.privacy.renyi import (
    ORDERS,
    discrete_gaussian_divergence,
    fixed_size_sampled,
    laplace_divergence,
    poisson_sampled,
    pure_divergence,
    renyi_delta,
    renyi_divergences,
    renyi_epsilon,
    skellam_divergence,
)

SIGMA_1 = Gaussian(noise_multiplier=1)

GOLDEN = [
    (0.01, 1.0, 1000, 1e-5, 1.8282),
    (256 / 60000, 1.1, 14100, 1e-5, 2.3852),
    (0.1, 1.0, 100, 1e-5, 7.0466),
    (1.0, 5.0, 100, 1e-5, 9.9973),
    (5000 / 763430, 1.0, 5000, 1e-9, 3.8988),
]


def sampled(rate: float, noise: float) -> PoissonSampled:
    return PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=noise))


@pytest.mark.parametrize(("rate", "noise", "rounds", "at", "wanted"), GOLDEN)
def test_golden_values(rate: float, noise: float, rounds: int, at: float, wanted: float) -> None:
    spent = account(Repeated(event=sampled(rate, noise), count=rounds), delta=at)
    assert wanted - 1e-4 <= spent.epsilon <= wanted + 1e-3  # the golden values have four places
    assert spent.method == ("exact" if rate == 1 else "pld")


def test_the_coarser_grid_only_adds() -> None:
    """Where the rounding is largest (14,100 rounds): never below dp-accounting's own grid, and by 3.5e-4 at most."""
    rate, noise, rounds, at, _ = GOLDEN[1]
    fine = google.from_gaussian_mechanism(noise, sampling_prob=rate).self_compose(rounds).get_epsilon_for_delta(at)
    assert fine <= epsilon(Repeated(event=sampled(rate, noise), count=rounds), at) <= fine + 3.5e-4


@pytest.mark.parametrize(("noise", "at"), [(0.5, 1e-5), (1.0, 1e-9), (5.0, 0.01), (30.0, 1e-12)])
def test_gaussian_curve_against_integration(noise: float, at: float) -> None:
    found = epsilon(Gaussian(noise_multiplier=noise), at)

    def excess(x: float) -> float:
        return max(0.0, stats.norm.pdf(x, 1, noise) - math.exp(found) * stats.norm.pdf(x, 0, noise))

    edge = 0.5 + found * noise**2
    value = integrate.quad(excess, edge, edge + 40 * noise, epsabs=0, epsrel=1e-9)[0]
    assert value == pytest.approx(at, rel=1e-6) or (found == 0 and value <= at)


def test_very_many_rounds_get_a_finer_grid() -> None:
    """A million rounds of very little each: near Gaussian, mu = q sqrt(T (e^(1/z^2) - 1)) (Dong 2022, corollary 4)."""
    rate, noise, rounds = 1e-3, 5.0, 1_000_000
    mu = rate * math.sqrt(rounds * math.expm1(noise**-2))
    limit = epsilon(Gaussian(noise_multiplier=1 / mu), 1e-6)
    assert limit < epsilon(Repeated(event=sampled(rate, noise), count=rounds), 1e-6) < 1.02 * limit


def test_independent_gaussians_are_one() -> None:
    parts = [Gaussian(noise_multiplier=2)] * 3 + [Gaussian(noise_multiplier=4)] * 4
    assert epsilon(parts, 1e-6) == pytest.approx(epsilon(SIGMA_1, 1e-6), rel=1e-12)


def test_order_and_nesting_do_not_matter() -> None:
    events: list[Event] = [sampled(0.1, 1), Laplace(noise_multiplier=9), sampled(0.1, 1), sampled(0.2, 3)]
    wanted = account(events, delta=1e-5)
    random.Random(1).shuffle(events)
    nested = Composed(events=(Repeated(event=sampled(0.1, 1), count=2), Laplace(noise_multiplier=9), sampled(0.2, 3)))
    assert account(events, delta=1e-5) == wanted == account(nested, delta=1e-5) == account(Counter(events), delta=1e-5)


def test_clip_bits_cost_what_the_paper_says() -> None:
    """Andrew 2021, theorem 1: z = (z_delta^-2 + (2 sigma_b)^-2)^-1/2 for the two releases together."""
    together = PoissonSampled(rate=0.1, event=Composed(events=(SIGMA_1, AdaptiveClipBits(noise_stddev=2.0))))
    alone = sampled(0.1, (1 + 1 / 16) ** -0.5)
    assert flatten(together) == flatten(alone)
    assert epsilon(Repeated(event=together, count=10), 1e-5) > epsilon(Repeated(event=sampled(0.1, 1), count=10), 1e-5)


def test_everybody_sampled_is_no_sampling() -> None:
    assert epsilon(sampled(1.0, 2.0), 1e-5) == epsilon(Gaussian(noise_multiplier=2), 1e-5)
    everybody = FixedSizeSampled(sample=7, population=7, event=Gaussian(noise_multiplier=2))
    assert account(everybody, delta=1e-5).neighbours == "replace-one"
    assert epsilon(everybody, 1e-5) == pytest.approx(epsilon(SIGMA_1, 1e-5), rel=1e-12)  # twice the sensitivity


@pytest.mark.parametrize("rounds", [1, 100])
def test_fixed_size_lies_between_an_attack_and_the_renyi_bound(rounds: int) -> None:
    """Above the pair "my record is +C" against "it is -C" among zeros; below Wang et al.'s bound."""
    event = FixedSizeSampled(sample=100, population=1000, event=Gaussian(noise_multiplier=2))
    spent = account(Repeated(event=event, count=rounds), delta=1e-5)
    pair = google.from_gaussian_mechanism(
        2.0, sampling_prob=0.1, neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    assert spent.method == "pld"
    assert spent.epsilon >= pair.self_compose(rounds).get_epsilon_for_delta(1e-5) - 1e-4
    renyi = dp_accounting.rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    renyi.compose(dp_accounting.SampledWithoutReplacementDpEvent(1000, 100, dp_accounting.GaussianDpEvent(1.0)), rounds)
    assert spent.epsilon < renyi.get_epsilon(1e-5)


def test_one_fixed_size_step_in_closed_form() -> None:
    """Balle 2018, theorem 9: delta'(log(1 + q (e^eps - 1))) = q delta(eps), with the sensitivity of replacement."""
    event = FixedSizeSampled(sample=1, population=20, event=Gaussian(noise_multiplier=1.5))
    for unsampled in (0.5, 2.0, 4.0):
        after = math.log1p(math.expm1(unsampled) / 20)
        wanted = gaussian_delta(0.75, unsampled) / 20
        assert delta(event, after).delta == pytest.approx(wanted, rel=1e-3)
        assert delta(event, after).delta >= wanted * (1 - 1e-9)


def test_fixed_size_costs_more_than_poisson() -> None:
    fixed = FixedSizeSampled(sample=10, population=100, event=SIGMA_1)
    assert epsilon(Repeated(event=fixed, count=20), 1e-5) > epsilon(Repeated(event=sampled(0.1, 1), count=20), 1e-5)


def test_pure_epsilons_add_up() -> None:
    events: list[Event] = [LocalEpsilon(epsilon=0.25), LocalEpsilon(epsilon=0.25)]
    assert account(events, delta=None) == Spent(
        epsilon=0.5, delta=0.0, method="pure", reason="epsilons add up", neighbours="replace-one"
    )
    assert epsilon(Repeated(event=Laplace(noise_multiplier=4), count=8), None) == pytest.approx(2.0)
    assert delta(events, 0.5).delta == 0.0


def test_many_pure_releases_compose_better_with_a_delta() -> None:
    many = Repeated(event=LocalEpsilon(epsilon=0.1), count=400)
    spent = account(many, delta=1e-6)
    assert spent.method == "pld"
    assert spent.epsilon < 0.35 * epsilon(many, None)
    few = account(Repeated(event=LocalEpsilon(epsilon=0.1), count=2), delta=1e-6)
    assert 0.1999 < few.epsilon <= 0.2  # never more than the sum


def test_delta_is_the_inverse_of_epsilon() -> None:
    for event in (
        Gaussian(noise_multiplier=2),
        Repeated(event=sampled(0.05, 0.9), count=50),
        DiscreteGaussian(stddev=20, l2_sensitivity=10, l1_sensitivity=40, dimension=16),
    ):
        assert delta(event, epsilon(event, 1e-5)).delta == pytest.approx(1e-5, rel=0.02)


def test_correlated_noise_is_one_gaussian() -> None:
    run = CorrelatedGaussian(
        correlation="banded", noise_multiplier=3, sensitivity=1.5, rounds=9, participations=3, min_separation=3
    )
    spent = account(run, delta=1e-6)
    assert spent.epsilon == pytest.approx(epsilon(Gaussian(noise_multiplier=2), 1e-6))
    assert spent.neighbours == "zero-out-one"
    doubled = account(run, delta=1e-6, neighbours="replace-one")
    assert doubled.epsilon == pytest.approx(epsilon(SIGMA_1, 1e-6))


def test_nothing_private_is_infinite() -> None:
    for event in (
        NonPrivate(reason="metrics"),
        Gaussian(noise_multiplier=0),
        sampled(0.1, 0),
        Laplace(noise_multiplier=0),
    ):
        spent = account([sampled(0.1, 1), event], delta=1e-5)
        assert spent.epsilon == math.inf
        assert spent.method == "none"
        assert spent.reason
        assert delta([event], 3.0).delta == 1.0


def test_nothing_released_costs_nothing() -> None:
    assert account([], delta=1e-5).epsilon == 0.0
    assert account([], delta=None).epsilon == 0.0


def test_renyi_steps_in_and_says_why() -> None:
    grid = DiscreteGaussian(stddev=3, l2_sensitivity=3, l1_sensitivity=9, dimension=9)
    spent = account(PoissonSampled(rate=0.1, event=grid), delta=1e-5)
    assert (spent.method, "PoissonSampled(DiscreteGaussian)" in spent.reason) == ("rdp", True)
    assert account(sampled(0.1, 1), delta=1e-15).method == "rdp"
    huge = account(Repeated(event=sampled(0.5, 0.1), count=1000), delta=1e-5)
    assert huge.method == "rdp"
    assert 100 < huge.epsilon < math.inf


def test_many_kinds_of_releases_are_left_to_renyi() -> None:
    kinds: list[Event] = [sampled(0.01, 1 + n / 100) for n in range(33)]
    spent = account(kinds, delta=1e-5)
    assert (spent.method, "kinds of releases" in spent.reason) == ("rdp", True)


def test_discrete_gaussian_is_accounted_as_concentrated() -> None:
    """One share: rho = (D2 / sigma)^2 / 2, as dp-accounting's zCDP event."""
    event = DiscreteGaussian(stddev=2.5, l2_sensitivity=1, l1_sensitivity=3, dimension=9)
    reference = dp_accounting.rdp.RdpAccountant(ORDERS).compose(dp_accounting.dp_event.ZCDpEvent(0.5 * 0.4**2))
    assert epsilon(event, 1e-6) == pytest.approx(reference.get_epsilon(1e-6), rel=1e-12)


def test_a_sum_of_shares_costs_a_little_more_than_one() -> None:
    one = DiscreteGaussian(stddev=10, l2_sensitivity=8, l1_sensitivity=80, dimension=100)
    shares = DiscreteGaussian(stddev=1, l2_sensitivity=8, l1_sensitivity=80, dimension=100, num_shares=100)
    coarse = DiscreteGaussian(stddev=0.5, l2_sensitivity=4, l1_sensitivity=40, dimension=100, num_shares=100)
    assert epsilon(one, 1e-6) < epsilon(shares, 1e-6) < 1.2 * epsilon(one, 1e-6)
    assert epsilon(coarse, 1e-6) > 2 * epsilon(one, 1e-6)  # the grid is too coarse: tau shows
    too_coarse = DiscreteGaussian(stddev=0.4, l2_sensitivity=4, l1_sensitivity=40, dimension=100, num_shares=2)
    assert epsilon(too_coarse, 1e-6) == math.inf  # outside of the proposition


def test_tau_by_hand() -> None:
    event = DiscreteGaussian(stddev=0.5, l2_sensitivity=1, l1_sensitivity=1, dimension=4, num_shares=2)
    tau = 10 * math.exp(-2 * math.pi**2 * 0.25 * 0.5)
    d = 1 / math.sqrt(0.5)
    wanted = min(d**2 + 4 * tau, d**2 + 2 * d * tau + 4 * tau**2, (d + 2 * tau) ** 2)
    assert discrete_gaussian_divergence(event, 2) == pytest.approx(wanted)


def test_skellam_approaches_the_gaussian() -> None:
    fine = Skellam(variance=1e10, l2_sensitivity=1e5, l1_sensitivity=1e6)
    assert skellam_divergence(fine, 4) == pytest.approx(2.0, rel=1e-3)
    coarse = Skellam(variance=4, l2_sensitivity=2, l1_sensitivity=2)
    assert skellam_divergence(coarse, 2) == pytest.approx(2 * 4 / 8 + min((3 * 4 + 12) / 64, 6 / 8))


def skellam_by_summation(variance: float, shift: int, order: int) -> float:
    x = np.arange(-90, 91)
    p, q = stats.skellam.pmf(x, variance / 2, variance / 2), stats.skellam.pmf(x - shift, variance / 2, variance / 2)
    return math.log(float(np.sum(np.exp(order * np.log(p) + (1 - order) * np.log(q))))) / (order - 1)


@pytest.mark.parametrize("order", [2, 3, 8])
@pytest.mark.parametrize("shift", [1, 3])
def test_skellam_bound_is_above_the_truth(order: int, shift: int) -> None:
    bound = skellam_divergence(Skellam(variance=30.0, l2_sensitivity=shift, l1_sensitivity=shift), order)
    truth = skellam_by_summation(30.0, shift, order)
    assert truth <= bound <= 1.6 * truth


@pytest.mark.parametrize("order", [1.5, 2, 7])
def test_laplace_divergence_by_integration(order: float) -> None:
    scale = 1 / 0.7

    def integrand(x: float) -> float:
        return stats.laplace.pdf(x, 0, scale) ** order * stats.laplace.pdf(x, 1, scale) ** (1 - order)

    total = integrate.quad(integrand, -60, 60, points=[0, 1], limit=200)[0]
    assert laplace_divergence(0.7, order) == pytest.approx(math.log(total) / (order - 1), rel=1e-6)
    assert laplace_divergence(0.7, order) <= pure_divergence(0.7, order) <= 0.7


def test_general_amplification_is_above_the_gaussian_one() -> None:
    tight = dp_accounting.rdp.RdpAccountant([2, 3, 8]).compose(
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0))
    )
    fixed = dp_accounting.rdp.RdpAccountant(
        [2, 3, 8], neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    ).compose(dp_accounting.SampledWithoutReplacementDpEvent(10, 1, dp_accounting.GaussianDpEvent(2.0)))
    for place, order in enumerate((2, 3, 8)):
        general = poisson_sampled(lambda a: a / 8, 0.1, order)
        assert tight.rdp[place] * (1 - 1e-12) <= general < 4 * tight.rdp[place]
        without = fixed_size_sampled(lambda a: a / 8, 0.1, order)
        assert fixed.rdp[place] * (1 - 1e-12) <= without < 4 * fixed.rdp[place]


def test_renyi_conversions_agree() -> None:
    divergences = renyi_divergences(flatten(Repeated(event=sampled(0.1, 1), count=10))[0].parts, "add-or-remove-one")
    for at in (1e-3, 1e-6, 1e-12):
        assert renyi_delta(divergences, renyi_epsilon(divergences, at)) == pytest.approx(at, rel=1e-6)


GRID = DiscreteGaussian(stddev=3, l2_sensitivity=1, l1_sensitivity=1, dimension=1)  # too coarse to be near a Gaussian
LATTICE = Skellam(variance=3600, l2_sensitivity=20, l1_sensitivity=20)


@pytest.mark.parametrize(
    ("event", "alike"),
    [
        # what it is near to, in a form that has a tighter way: the discrete mechanisms approach a Gaussian of 3
        (PoissonSampled(rate=0.1, event=GRID), sampled(0.1, 3)),
        (PoissonSampled(rate=0.1, event=Repeated(event=LATTICE, count=4)), sampled(0.1, 1.5)),
        (
            FixedSizeSampled(sample=1, population=10, event=GRID),
            FixedSizeSampled(sample=1, population=10, event=Gaussian(noise_multiplier=3)),
        ),
        (
            PoissonSampled(
                rate=0.1, event=Composed(events=(Gaussian(noise_multiplier=3), Laplace(noise_multiplier=1e5)))
            ),
            sampled(0.1, 3),
        ),
        (
            Composed(events=(GRID, LocalEpsilon(epsilon=1e-6), Laplace(noise_multiplier=1e6))),
            Gaussian(noise_multiplier=3),
        ),
    ],
)
def test_renyi_bounds_are_above_what_they_approach(event: Event, alike: Event) -> None:
    many, like = Repeated(event=event, count=30), Repeated(event=alike, count=30)
    assert account(many, delta=1e-5).method == "rdp"
    assert epsilon(like, 1e-5) < epsilon(many, 1e-5) < 4 * epsilon(like, 1e-5)
    assert epsilon(like, 1e-5) < epsilon(Repeated(event=event, count=31), 1e-5)


def test_delta_beyond_the_numerics_is_left_to_renyi() -> None:
    found = delta(sampled(0.01, 4), 3.0)
    assert (found.method, found.delta < 1e-12) == ("rdp", True)
    for bad in (-1, math.inf, math.nan):
        with pytest.raises(PrivacyError, match="epsilon is"):
            delta(SIGMA_1, bad)


def test_rdp_is_above_pld() -> None:
    for rate, noise, rounds, at, wanted in GOLDEN:
        (flat,) = flatten(Repeated(event=sampled(rate, noise), count=rounds))
        assert wanted < renyi_epsilon(renyi_divergences(flat.parts, flat.neighbours), at) < 1.2 * wanted


@given(
    st.floats(0.001, 0.2),
    st.floats(1.0, 8.0),
    st.integers(1, 100),
)
@settings(deadline=None, max_examples=6)
def test_more_rounds_cost_more_and_more_noise_less(rate: float, noise: float, rounds: int) -> None:
    base = epsilon(Repeated(event=sampled(rate, noise), count=rounds), 1e-5)
    assert epsilon(Repeated(event=sampled(rate, noise), count=rounds + 50), 1e-5) >= base - 1e-9
    assert epsilon(Repeated(event=sampled(rate, 1.3 * noise), count=rounds), 1e-5) <= base + 1e-9


def test_a_curve_over_rounds() -> None:
    rounds = round_grid(5000, points=6)
    curve = epsilon_by_round(sampled(5000 / 763430, 1), [0, *rounds], delta=1e-9)
    values = [spent.epsilon for spent in curve]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == pytest.approx(3.8988, abs=1e-3)


REFUSED: list[tuple[Event | list[Event], str]] = [
    ([sampled(0.1, 1), FixedSizeSampled(sample=1, population=2, event=SIGMA_1)], "their costs can't be added"),
    (PoissonSampled(rate=0.1, event=LocalEpsilon(epsilon=1)), "sampling hides nothing"),
    (PoissonSampled(rate=0.1, event=sampled(0.1, 1)), "a sample of a sample"),
    (
        PoissonSampled(
            rate=0.1,
            event=CorrelatedGaussian(
                correlation="tree", noise_multiplier=1, sensitivity=1, rounds=1, participations=1, min_separation=1
            ),
        ),
        "its noise spans rounds",
    ),
]


@pytest.mark.parametrize(("events", "why"), REFUSED)
def test_what_is_not_analysed_is_refused(events: Event | list[Event], why: str) -> None:
    with pytest.raises(PrivacyError, match=why):
        account(events, delta=1e-5)


@pytest.mark.parametrize("stranger", [object(), "gaussian", 3, [SIGMA_1, "more"], [{}], None])
def test_strangers_are_unknown(stranger: object) -> None:
    with pytest.raises(UnknownEventError, match="no privacy event"):
        account(stranger, delta=1e-5)  # type: ignore[arg-type]


def test_a_budget_without_delta_is_refused_with_a_sentence() -> None:
    with pytest.raises(PrivacyError, match="without delta") as caught:
        account(sampled(0.1, 1), delta=None)
    assert "give a delta" in str(caught.value)


@pytest.mark.parametrize("at", [0, 1, -1e-5, math.nan, 2])
def test_impossible_deltas_are_refused(at: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        account(SIGMA_1, delta=at)


def test_relations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PrivacyError, match="not accounted for under"):
        account(sampled(0.1, 1), delta=1e-5, neighbours="replace-one")
    with pytest.raises(PrivacyError, match="neighbours is"):
        account(SIGMA_1, delta=1e-5, neighbours="replace")  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [1e-300, 1e-7, 1e-3, 1e12, 1e300])
def test_extremes_neither_crash_nor_undercount(noise: float) -> None:
    for event in (Gaussian(noise_multiplier=noise), sampled(0.01, noise)):
        value = epsilon(event, 1e-5)
        assert value >= 0
        assert value > 1e3 if noise <= 1e-7 else True


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "dp_accounting"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtraError, match="privacy accounting") as caught:
        epsilon(sampled(0.0123, 1.7), 1e-5)
    assert 'pip install "hanse[privacy]"' in str(caught.value)
