"""Discrete noise is exact: by enumeration of every path of bits, and by chi-square against the equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hanse.core.errors import NonFiniteUpdateError, PrivacyError
from hanse.core.randomness import stream
from hanse.privacy import discrete_noise
from hanse.privacy import half_gaussian as half
from hanse.privacy.accountant import epsilon
from hanse.privacy.discrete_noise import bernoulli_exp, discrete_gaussian, discrete_laplace, rational_variance
from hanse.privacy.events import Gaussian
from hanse.privacy.gaussian_noise import gaussian, granular_event, granular_gaussian, granularity_for
from hanse.privacy.random_source import OsRandomness, SimulatedRandomness
from hanse.privacy.skellam_noise import skellam

FALSE_FAILURE = 1e-6  # of one chi-square test with fresh seeds; with these fixed ones, none


def simulated(name: str) -> SimulatedRandomness:
    return SimulatedRandomness(stream(11, name))


class _MoreBits(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class _Script:
    """A source that plays back given uniform numbers, one at a time, and asks for more when they are used up."""

    is_secret = False

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = list(numbers)

    def below(self, limit: int, size: int) -> np.ndarray:
        if size == 0 or limit == 1:
            return np.zeros(size, dtype=np.int64)
        assert size == 1
        if not self._numbers:
            raise _MoreBits(limit)
        return np.array([self._numbers.pop(0)])

    def normals(self, size: int) -> np.ndarray:
        raise AssertionError("a floating-point number took part")

    def generator(self) -> np.random.Generator:
        raise AssertionError("a floating-point number took part")


def enumerate_paths(draw: Callable[[_Script], object], least: Fraction) -> tuple[dict[object, Fraction], Fraction]:
    """The exact probability of each result over all paths, and of the paths that were not followed to their end."""
    found: dict[object, Fraction] = {}
    rest, undecided = [((), Fraction(1))], Fraction(0)
    while rest:
        numbers, share = rest.pop()
        if share < least:
            undecided += share
            continue
        try:
            result = draw(_Script(numbers))
        except _MoreBits as wanted:
            rest += [((*numbers, value), share / wanted.limit) for value in range(wanted.limit)]
            continue
        found[result] = found.get(result, Fraction(0)) + share
    return found, undecided


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 1), (1, 2), (1, 1), (2, 3), (3, 2), (5, 2)])
def test_bernoulli_exp_by_enumeration(numerator: int, denominator: int) -> None:
    """The exact acceptance probability brackets exp(-n/d), computed to 30 digits by its series."""
    found, undecided = enumerate_paths(
        lambda source: bool(bernoulli_exp(np.array([numerator]), denominator, source)[0]), Fraction(1, 10**6)
    )
    wanted = sum((Fraction(-numerator, denominator) ** k / math.factorial(k) for k in range(40)), Fraction(0))
    accepted = found.get(True, Fraction(0))
    assert accepted <= wanted + Fraction(1, 10**20)
    assert wanted <= accepted + undecided + Fraction(1, 10**20)
    assert undecided < Fraction(1, 1000)
    assert sum(found.values()) + undecided == 1


def test_bernoulli_a_few_bits_at_a_time_by_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete_noise, "_FEW", 2)
    for numerator in (0, 1, 4, 6, 7):
        found, undecided = enumerate_paths(
            lambda source, n=numerator: bool(discrete_noise._bernoulli(np.array([n]), 7, source)[0]), Fraction(1, 4**9)
        )
        accepted, wanted = found.get(True, Fraction(0)), Fraction(numerator, 7)
        assert accepted <= wanted <= accepted + undecided
        assert undecided <= Fraction(1, 4**9)


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(2, 3)])
def test_laplace_candidates_by_enumeration(scale: Fraction) -> None:
    """Before rejection is repeated, results come in the ratio exp(-1/scale), and both signs alike."""

    def draw(source: _Script) -> object:
        kept = discrete_noise._laplace_candidates(scale, 1, source)
        return int(kept[0]) if len(kept) else None

    found, undecided = enumerate_paths(draw, Fraction(1, 10**5))
    ratio = math.exp(-1 / scale)
    for value in (1, 2):
        assert abs(found[value] - found[-value]) <= undecided
        slack = float(undecided / found[value - 1]) * 2
        assert float(found[value] / found[value - 1]) == pytest.approx(ratio, abs=slack)
    assert undecided < Fraction(1, 50)


def chi_square(numbers: np.ndarray, log_weight: Callable[[np.ndarray], np.ndarray], reach: int) -> float:
    """The p-value of whole numbers against probabilities proportional to exp(log_weight)."""
    support = np.arange(-reach, reach + 1)
    weights = np.exp(log_weight(support.astype(np.float64)))
    expected = len(numbers) * weights / weights.sum()
    seen = np.bincount(np.clip(numbers, -reach, reach) + reach, minlength=len(support)).astype(np.float64)
    common = expected >= 10
    observed = np.append(seen[common], seen[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    if wanted[-1] < 10:
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    return float(stats.chisquare(observed, wanted).pvalue)


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(1), Fraction(7, 2), Fraction(40)])
def test_discrete_laplace_against_its_equation(scale: Fraction) -> None:
    numbers = discrete_laplace(scale, 100_000, simulated(f"laplace {scale}"))
    assert chi_square(numbers, lambda x: -np.abs(x) / float(scale), 60 * math.ceil(scale)) > FALSE_FAILURE


@pytest.mark.parametrize(
    "variance",
    [
        *(Fraction(1, 10), Fraction(1, 2), Fraction(1), Fraction(5, 2), Fraction(4), Fraction(1000, 7), Fraction(900)),
        *(Fraction(130) ** 2, Fraction(301**2, 3)),  # in steps of 2: the rest of a magnitude is drawn too
    ],
)
def test_discrete_gaussian_against_its_equation(variance: Fraction) -> None:
    numbers = discrete_gaussian(variance, 100_000, simulated(f"gaussian {variance}"))
    reach = 12 * math.isqrt(math.ceil(variance)) + 12
    assert chi_square(numbers, lambda x: -(x**2) / (2 * float(variance)), reach) > FALSE_FAILURE


@pytest.mark.parametrize("exponent", [Fraction(1), Fraction(2, 9)])
def test_half_gaussian_by_enumeration(monkeypatch: pytest.MonkeyPatch, exponent: Fraction) -> None:
    """With words of 3 bits most draws need several: each result's probability brackets that of the equation."""
    monkeypatch.setattr(half, "WORD", 3)
    half._table.cache_clear()
    half._boundaries.cache_clear()
    try:
        found, undecided = enumerate_paths(
            lambda source: int(half.half_gaussian(exponent, 1, source)[0]), Fraction(1, 8**7)
        )
    finally:
        half._table.cache_clear()
    weights = np.exp(-float(exponent) * np.arange(40.0) ** 2)
    wanted = weights / weights.sum()
    assert 0 < undecided < Fraction(1, 10_000)  # boundaries that no number of bits drawn here was enough for
    assert sum(found.values()) + undecided == 1
    for value, share in found.items():
        assert isinstance(value, int)
        assert float(share) <= wanted[value] + 1e-12
        assert wanted[value] <= float(share + undecided) + 1e-12


def test_a_boundary_that_digits_do_not_tell_is_computed_to_more(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = half._boundaries(Fraction(1, 50), 62)
    monkeypatch.setattr(half, "_GUARD", -10)  # at first too few digits
    assert half._boundaries.__wrapped__(Fraction(1, 50), 62) == wanted
    assert wanted == sorted(wanted)
    assert wanted[-1] == 2**62 - 1


def test_a_magnitude_is_kept_with_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of m = 2: given h and r, what is asked of the coin is (2 m h r + r²) / (2 variance)."""
    asked: list[tuple[int, ...]] = []

    def accept(numerators: np.ndarray, denominator: int, source: object) -> np.ndarray:
        asked.append((*numerators.tolist(), denominator))
        return np.ones(len(numerators), dtype=bool)

    monkeypatch.setattr(discrete_noise, "bernoulli_exp", accept)
    monkeypatch.setattr(discrete_noise, "half_gaussian", lambda exponent, size, source: np.full(size, 7))
    variance = Fraction(130 * 130 * 3 + 1, 3)
    found = set(discrete_gaussian(variance, 40, simulated("kept")).tolist())
    assert found == {14, 15, -14, -15}
    assert set(asked[0][:-1]) == {0, (15**2 - 14**2) * 3}
    assert asked[0][-1] == 2 * (130 * 130 * 3 + 1)


def test_chi_square_would_see_a_wrong_scale() -> None:
    numbers = discrete_gaussian(Fraction(100), 100_000, simulated("wrong"))
    assert chi_square(numbers, lambda x: -(x**2) / (2 * 96.0), 120) < FALSE_FAILURE


def test_a_large_gaussian_has_its_moments() -> None:
    numbers = discrete_gaussian(rational_variance(123_456.7), 100_000, simulated("large")) / 123_456.7
    assert abs(numbers.mean()) < 5 / math.sqrt(100_000)
    assert abs(numbers.var() - 1) < 5 * math.sqrt(2 / 100_000)
    assert stats.kstest(numbers, "norm").pvalue > FALSE_FAILURE


def test_the_system_draws_it_too_and_never_the_same() -> None:
    first, second = (discrete_gaussian(Fraction(10**6), 1000, OsRandomness()) for _ in range(2))
    assert first.dtype == np.int64
    assert first.tolist() != second.tolist()
    assert discrete_gaussian(Fraction(1), 0, OsRandomness()).shape == (0,)


def test_the_same_seed_gives_the_same_noise() -> None:
    first, second = (discrete_gaussian(Fraction(50), 100, simulated("same")) for _ in range(2))
    assert first.tolist() == second.tolist()


@given(st.floats(1e-4, 2.0**24))
@settings(deadline=None, max_examples=60)
def test_rational_variance_is_never_smaller_and_always_usable(stddev: float) -> None:
    variance = rational_variance(stddev)
    exact = Fraction(stddev) ** 2
    assert exact <= variance <= exact + Fraction(1, 1 << 16) + exact / (1 << 40)
    assert discrete_gaussian(variance, 3, simulated("usable")).shape == (3,)


@pytest.mark.parametrize("value", [0, -1, 0.5, True, Fraction(-1, 2), "1"])
def test_impossible_parameters_are_refused(value: object) -> None:
    with pytest.raises(PrivacyError, match="wanted a fraction > 0"):
        discrete_gaussian(value, 3, simulated("bad"))  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="wanted a fraction > 0"):
        discrete_laplace(value, 3, simulated("bad"))  # type: ignore[arg-type]


def test_what_exact_arithmetic_can_not_hold_is_refused() -> None:
    with pytest.raises(PrivacyError, match="too many digits"):
        discrete_gaussian(10**6 * Fraction(math.pi), 3, simulated("bad"))
    with pytest.raises(PrivacyError, match=r"at most 2\^50"):
        discrete_laplace(Fraction((1 << 50) + 1), 3, simulated("bad"))
    for value in (0, -1.0, float("nan"), 2.0**25, "3"):
        with pytest.raises(PrivacyError, match="standard deviation"):
            rational_variance(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("variance", [0.5, 20.0, 3000.0])
def test_skellam_against_its_equation(variance: float) -> None:
    numbers = skellam(variance, 100_000, simulated(f"skellam {variance}"))
    reach = 12 * math.ceil(math.sqrt(variance)) + 12
    mean = variance / 2
    assert chi_square(numbers, lambda x: stats.skellam.logpmf(x, mean, mean), reach) > FALSE_FAILURE


def test_shares_of_skellam_noise_add_up() -> None:
    shares = sum(skellam(2.0, 50_000, simulated(f"share {n}")) for n in range(10))
    assert chi_square(np.asarray(shares), lambda x: stats.skellam.logpmf(x, 10.0, 10.0), 80) > FALSE_FAILURE


@pytest.mark.parametrize("variance", [0, -1, float("nan"), 2.0**61, "1"])
def test_impossible_skellam_variances_are_refused(variance: float) -> None:
    with pytest.raises(PrivacyError, match="Skellam"):
        skellam(variance, 3, simulated("bad"))


def test_gaussian_noise_has_its_size() -> None:
    noise = gaussian(3.0, 100_000, simulated("plain"))
    assert stats.kstest(noise / 3, "norm").pvalue > FALSE_FAILURE
    assert not gaussian(0.0, 5, OsRandomness()).any()
    for stddev in (-1, float("nan"), float("inf"), "1"):
        with pytest.raises(PrivacyError, match="standard deviation"):
            gaussian(stddev, 3, OsRandomness())  # type: ignore[arg-type]


@pytest.mark.parametrize("stddev", [1e-6, 0.37, 1.0, 12345.0])
def test_granular_noise_lies_on_its_grid(stddev: float) -> None:
    values = np.linspace(-3 * stddev, 3 * stddev, 20_001)
    grid = granularity_for(stddev)
    released = granular_gaussian(values, stddev, simulated(f"granular {stddev}"))
    assert math.frexp(grid)[0] == 0.5  # a power of two
    assert (1 << 19) < stddev / grid <= 1 << 20
    assert np.array_equal(released / grid, np.rint(released / grid))
    assert stats.kstest((released - values) / stddev, "norm").pvalue > FALSE_FAILURE


def test_granular_noise_refuses_what_has_no_place_on_the_grid() -> None:
    for bad in (np.nan, np.inf, 2.0**31):
        with pytest.raises(NonFiniteUpdateError):
            granular_gaussian(np.array([0.0, bad]), 1.0, OsRandomness())
    with pytest.raises(PrivacyError):
        granular_gaussian(np.zeros(2), 0.0, OsRandomness())


def test_granular_noise_costs_its_rounding_and_the_conversion() -> None:
    plain, small, large = (
        epsilon(Gaussian(noise_multiplier=1), 1e-6),
        epsilon(granular_event(1.0, 0.5, 100), 1e-6),
        epsilon(granular_event(1.0, 0.5, 10**9), 1e-6),
    )
    assert plain < small < 1.1 * plain
    assert small < large
