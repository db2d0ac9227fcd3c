"""How many neighbours each client needs, and how many of them must help to open a secret.

A client shares masks and secrets with k neighbours on a ring whose order is random (a Harary graph), not with all
n - 1. Of the n clients at most γn work with the server and δn drop out. With X_i the corrupt and Y_i the surviving
neighbours of client i, both hypergeometric, and t of its k neighbours and itself needed to open a secret:

- secrecy, 1: too few are corrupt to open a secret: Pr[some X_i > c] ≤ 2^-(σ+1), and t > c;
- secrecy, 2: honest survivors stay connected, for the masks hide no more than the sum over each connected part: a ring
  falls apart only with k/2 successive clients gone in two places, which has probability at most
  n(n - k - 1)/2 · Π_{m<k} ((γ+δ)n - m)/(n - m) ≤ 2^-(σ+1);
- correctness: enough survive: Pr[some Y_i < t] ≤ 2^-η.

That is for a server that follows the protocol and is curious (Bell et al., section 3). One that lies chooses who "drops
out" when it knows the graph, so secrecy 2 must not rest on chance: with t ≥ k/2 + c + 2, a client with k/2 successive
neighbours gone on one side can't be opened at all, for only k/2 on the other side, c corrupt ones and itself are left
to help; so whoever is opened is connected. It also implies 2(t - c) > k + 1 - c, so that no two views of who survived
find enough helpers. Because that server may try many rosters before it shows one, σ is then higher by `GRINDING_BITS`.

References:
  Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, "Secure single-server aggregation with (poly)logarithmic overhead",
  CCS, eprint 2020/704, section 3; the bound for a lying server is this module's own, stricter than its section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

GRINDING_BITS = 40
"""log2 of the number of rosters that a lying server is thought to try while clients wait for one."""

_MOST_NEIGHBOURS = 1024  # more are no sparse graph


@dataclass(frozen=True)
class Degree:
    """A graph's size.

    Args:
      neighbours: k, of each client.
      shares: t, how many of a client's k neighbours and itself open its secrets.
    """

    neighbours: int
    shares: int


@lru_cache(maxsize=256)
def sparse_degree(
    num_clients: int, survivors: int, *, corrupt: float, sigma: int, eta: int, active: bool
) -> Degree | None:
    """The smallest even k below n - 1 that meets the bounds, and a t for it; None where there is none.

    Args:
      num_clients: n, ≥ 2.
      survivors: How many of them survive at least, (1 - δ)n.
      corrupt: γ, the share of the clients that may work with the server, in [0, 1).
      sigma: σ: secrecy fails with probability at most 2^-σ.
      eta: η: the sum fails with probability at most 2^-η if as many survive.
      active: Whether the server may lie.

    >>> sparse_degree(10_000, 9_000, corrupt=0.1, sigma=40, eta=20, active=False)
    Degree(neighbours=54, shares=31)
    """
    bad = int(corrupt * num_clients)
    secrecy = -(sigma + 1 + (GRINDING_BITS if active else 0)) * math.log(2)
    each_secrecy = secrecy - math.log(num_clients)
    each_correct = -eta * math.log(2) - math.log(num_clients)
    others = num_clients - 1
    for k in range(2, min(others, _MOST_NEIGHBOURS + 1), 2):
        if not active and log_disconnected(num_clients, bad + num_clients - survivors, k) > secrecy:
            continue
        most_corrupt = _quantile(others, bad, k, each_secrecy)
        fewest_alive = k - _quantile(others, min(others, num_clients - survivors), k, each_correct)
        least = k // 2 + most_corrupt + 2 if active else most_corrupt + 1
        if max(2, least) <= fewest_alive:
            return Degree(k, max(2, least))
    return None


def log_disconnected(num_clients: int, gone: int, neighbours: int) -> float:
    """Log of the bound on a random ring's falling apart when `gone` of its clients are taken away."""
    n, k = num_clients, neighbours
    if k > gone:
        return -math.inf
    gaps = math.log(n) + math.log(max(1, n - k - 1)) - math.log(2)
    return gaps + math.lgamma(gone + 1) + math.lgamma(n - k + 1) - math.lgamma(n + 1) - math.lgamma(gone - k + 1)


def log_hypergeometric(population: int, marked: int, drawn: int, found: int) -> float:
    """Log of Pr[`found` of `drawn` are marked], where `marked` of `population` are."""
    if not max(0, drawn - (population - marked)) <= found <= min(drawn, marked):
        return -math.inf
    return _choose(marked, found) + _choose(population - marked, drawn - found) - _choose(population, drawn)


def _quantile(population: int, marked: int, drawn: int, log_probability: float) -> int:
    """The smallest c with Pr[more than c of those drawn are marked] ≤ exp(log_probability)."""
    tail, allowed = 0.0, math.exp(log_probability)
    low, high = drawn * marked // population, min(drawn, marked) + 1  # beyond the mean, terms fall
    while high - low > 1:  # below `high` lies the first term that is not negligible, of e^-40 of what is allowed
        middle = (low + high) // 2
        negligible = log_hypergeometric(population, marked, drawn, middle) < log_probability - 40
        low, high = (low, middle) if negligible else (middle, high)
    for found in range(high - 1, -1, -1):
        tail += math.exp(log_hypergeometric(population, marked, drawn, found))
        if tail > allowed:
            return found
    return 0


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
