"""The byte-bounded cache."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.trainers.cache import ByteCache


def test_keeps_what_was_used_last() -> None:
    made: list[str] = []
    cache = ByteCache[str](6, len)

    def get(key: str) -> str:
        return cache.get(key, lambda: made.append(key) or key * 3)  # type: ignore[func-returns-value]

    for key in "abab":
        get(key)
    assert made == ["a", "b"]
    get("c")  # a was used longest ago
    get("b")
    assert made == ["a", "b", "c"]
    get("a")
    assert made == ["a", "b", "c", "a"]
    assert cache.used == 6


def test_too_large_is_never_kept() -> None:
    made: list[int] = []
    cache = ByteCache[str](2, len)
    for _ in range(2):
        assert cache.get("x", lambda: made.append(1) or "large") == "large"  # type: ignore[func-returns-value]
    assert len(made) == 2
    assert cache.used == 0


def test_forget() -> None:
    cache = ByteCache[str](10, len)
    cache.get("a", lambda: "one")
    cache.forget("a")
    cache.forget("never there")
    assert cache.used == 0
    assert cache.get("a", lambda: "other") == "other"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=50), st.integers(0, 20))
def test_stays_within_its_bound_and_counts_right(uses: list[tuple[int, bool]], capacity: int) -> None:
    cache = ByteCache[bytes](capacity, len)
    for key, forget in uses:
        if forget:
            cache.forget(key)
        else:
            assert cache.get(key, lambda key=key: bytes(3 * key)) == bytes(3 * key)  # type: ignore[misc]
        assert cache.used <= capacity
        assert cache.used == sum(len(value) for value in cache._values.values())
