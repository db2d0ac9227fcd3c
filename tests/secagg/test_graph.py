"""How many neighbours, who they are, and what is left when some go."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from hanse.core.errors import PipelineError, SettingError
from hanse.secagg.graph import Graph
from hanse.secagg.graph_bounds import GRINDING_BITS, Degree, log_disconnected, log_hypergeometric, sparse_degree
from tests.secagg.parties import make_terms


def test_the_hypergeometric_distribution_is_scipys() -> None:
    for population, marked, drawn in [(9_999, 1_000, 60), (99, 10, 98), (50, 0, 10), (50, 49, 10)]:
        for found in range(drawn + 1):
            expected = stats.hypergeom(population, marked, drawn).logpmf(found)
            assert log_hypergeometric(population, marked, drawn, found) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_disconnection_by_hand() -> None:
    """n = 10, k = 4, 5 gone: 10 · 5 / 2 pairs of gaps, each with probability 5·4·3·2 / (10·9·8·7)."""
    assert math.exp(log_disconnected(10, 5, 4)) == pytest.approx(float(25 * Fraction(120, 5040)))
    assert log_disconnected(10, 3, 4) == -math.inf


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize(("n", "survivors", "corrupt"), [(500, 400, 0.05), (1000, 900, 0.1), (10_000, 9_000, 0.05)])
def test_degrees_meet_the_papers_bounds_and_smaller_ones_do_not(
    n: int, survivors: int, corrupt: float, *, active: bool
) -> None:
    """Against SciPy's tails, written down anew."""

    def meets(degree: Degree) -> bool:
        k, t = degree.neighbours, degree.shares
        bad = int(corrupt * n)
        each = 2.0 ** -(40 + 1 + (GRINDING_BITS if active else 0)) / n
        if active:
            opened_by = t - 2 - k // 2  # so many corrupt helpers are still harmless
            apart = 0.0
        else:
            opened_by = t - 1
            apart = math.exp(log_disconnected(n, bad + n - survivors, k))
        corrupted = stats.hypergeom(n - 1, bad, k).sf(opened_by)
        fails = stats.hypergeom(n - 1, n - survivors, k).sf(k - t)
        return corrupted <= each * 1.001 and fails <= 2.0**-20 / n * 1.001 and apart <= 2.0**-41

    found = sparse_degree(n, survivors, corrupt=corrupt, sigma=40, eta=20, active=active)
    assert found is not None
    assert found.neighbours % 2 == 0
    assert meets(found)
    assert not any(meets(Degree(found.neighbours - 2, t)) for t in range(2, found.neighbours))


def test_degrees_grow_slowly() -> None:
    cohorts = (10**3, 10**4, 65_536)
    degrees = [sparse_degree(n, n * 9 // 10, corrupt=0.05, sigma=40, eta=20, active=False) for n in cohorts]
    sizes = [degree.neighbours for degree in degrees if degree]
    assert sizes == sorted(sizes)
    assert len(sizes) == 3
    assert sizes[-1] < 1.5 * sizes[0]


def test_no_graph_is_no_graph() -> None:
    assert sparse_degree(300, 180, corrupt=0.2, sigma=40, eta=20, active=True) is None
    assert make_terms(300, complete_up_to=256).degree(300).neighbours == 299  # then all are neighbours
    with pytest.raises(PipelineError, match="has no sparse graph") as caught:
        make_terms(10_000, threshold=0.6)
    assert "raise threshold" in str(caught.value)
    assert make_terms(10_000, threshold=0.9).degree(10_000).neighbours < 1000


@pytest.mark.parametrize(("n", "k"), [(7, 2), (50, 10), (101, 40), (5, 4)])
def test_neighbours_are_a_regular_connected_graph_that_everybody_agrees_on(n: int, k: int) -> None:
    graph = Graph(n, Degree(k, 2), bytes(16))
    sets = [set(graph.neighbours(client).tolist()) for client in range(n)]
    for client, found in enumerate(sets):
        assert len(found) == k
        assert client not in found
        assert all(client in sets[other] for other in found)
        assert graph.holders(client).tolist() == sorted(found | {client})
    if k < n - 1:
        other = Graph(n, Degree(k, 2), bytes([1] * 16))
        assert any(set(other.neighbours(client).tolist()) != sets[client] for client in range(n))


def is_connected(graph: Graph, alive: set[int]) -> bool:
    seen, todo = set(), [min(alive)]
    while todo:
        client = todo.pop()
        if client not in seen:
            seen.add(client)
            todo += [other for other in graph.neighbours(client).tolist() if other in alive]
    return seen == alive


def test_whom_a_lying_server_can_open_stays_connected() -> None:
    """It drops two gaps of k/2 clients, for it knows the ring: that falls apart, and none at a gap is opened."""
    n, k, corrupt = 60, 12, 1
    graph = Graph(n, Degree(k, k // 2 + corrupt + 2), bytes(16))
    order = [0]  # the ring, walked by those who share most neighbours
    nearness = {c: set(graph.neighbours(c).tolist()) | {c} for c in range(n)}
    while len(order) < n:
        last = order[-1]
        order.append(max(nearness[last] - set(order), key=lambda c: (len(nearness[c] & nearness[last]), -c)))
    dropped = set(order[10 : 10 + k // 2]) | set(order[40 : 40 + k // 2])
    alive = set(range(n)) - dropped
    assert not is_connected(graph, alive)
    opened = {c for c in alive if len(nearness[c] & alive) + corrupt >= graph.degree.shares}
    assert order[9] not in opened
    assert order[10 + k // 2] not in opened
    assert opened < alive  # so the sum of all alive, the only one that cancels masks, can't be opened


def test_random_drop_outs_leave_it_connected() -> None:
    degree = sparse_degree(400, 320, corrupt=0.05, sigma=40, eta=20, active=False)
    assert degree is not None
    rng = np.random.default_rng(0)
    for seed in range(5):
        graph = Graph(400, degree, bytes([seed] * 16))
        gone = set(rng.choice(400, 100, replace=False).tolist())
        assert is_connected(graph, set(range(400)) - gone)


@pytest.mark.parametrize(
    "changed",
    [
        {"threshold": 0.0},
        {"threshold": 1.1},
        {"min_survivors": 1},
        {"min_survivors": 9},
        {"corrupt": 0.5},
        {"sigma": 0},
        {"attempt": -1},
        {"cohort": 1},
        {"cohort": 70_000},
    ],
)
def test_terms_out_of_range_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        make_terms(**{"cohort": 8, **changed})  # type: ignore[arg-type]


def test_every_term_is_in_the_digest() -> None:
    terms = make_terms(8)
    others = [
        make_terms(8, **changed)
        for changed in (
            *({"run": "r"}, {"round": 4}, {"purpose": "p"}, {"attempt": 1}, {"threshold": 0.7}, {"min_survivors": 7}),
            *({"corrupt": 0.0}, {"active": False}, {"complete_up_to": 3}, {"sigma": 41}, {"eta": 21}),
            {"simulated": False},
        )
    ]
    digests = {terms.digest, make_terms(9).digest, *(other.digest for other in others)}
    assert len(digests) == 14
    assert make_terms(8).digest == terms.digest
