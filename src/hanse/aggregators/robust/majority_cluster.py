"""`majority_cluster`: the densest cluster that more than half of the points are in."""

from __future__ import annotations

import numpy as np


def majority_cluster(distances: np.ndarray) -> np.ndarray:
    """Positions of the one cluster that HDBSCAN finds if a cluster needs more than half of the points.

    HDBSCAN with clusters of at least ⌊n/2⌋ + 1 points, one neighbour, and a single cluster allowed: with one neighbour
    a point's core distance is no more than any of its distances, so the tree is that of single linkage; two clusters of
    more than half of the points cannot be, so the tree never splits in two. What stays together longest, going down
    from the root, is what is first joined, going up: let d be the least distance at which links no longer than d join
    more than half of the points; the cluster is all that they join. Neither equal distances nor the order matter.

    One point, or two, are a cluster. Costs n².

    Args:
      distances: `[n, n]`, symmetric, ≥ 0, n ≥ 1.

    References:
      Campello, Moulavi, Sander 2013, "Density-based clustering based on hierarchical density estimates", PAKDD.

    >>> x = np.array([0.0, 0.1, 0.3, 5.0, 9.0])
    >>> majority_cluster(abs(x[:, None] - x[None, :]))
    array([0, 1, 2])
    """
    count = len(distances)
    group = np.arange(count)
    reached, found = (0.0, 0) if count == 1 else (np.inf, -1)
    for length, left, right in _links(distances):
        if length > reached:
            break
        joined = (group == group[left]) | (group == group[right])
        group[joined] = right
        if joined.sum() > count // 2:
            reached, found = length, right
    return np.flatnonzero(group == group[found])


def _links(distances: np.ndarray) -> list[tuple[float, int, int]]:
    """A tree of the least total length that joins all points (Prim), from the shortest link on."""
    nearest, through = distances[0].astype(np.float64), np.zeros(len(distances), dtype=np.int64)
    inside = np.zeros(len(distances), dtype=bool)
    inside[0] = True
    links = []
    for _ in range(len(distances) - 1):
        new = int(np.argmin(np.where(inside, np.inf, nearest)))
        links.append((float(nearest[new]), int(through[new]), new))
        inside[new] = True
        closer = distances[new] < nearest
        nearest[closer], through[closer] = distances[new][closer], new
    return sorted(links)
