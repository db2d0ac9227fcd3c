from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.report.toml import to_toml

leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
job = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.\"' "), inner, max_size=3)
    ),
    max_size=4,
)


def without_none(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_none(v) for v in value if v is not None]
    return value


@settings(deadline=None, max_examples=60)
@given(job)
def test_what_is_written_reads_back(values: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(values)) == without_none(values)


def test_tuples_are_lists_and_other_values_their_text() -> None:
    from pathlib import PurePosixPath

    assert tomllib.loads(to_toml({"a": (1, 2), "b": PurePosixPath("x/y")})) == {"a": [1, 2], "b": "x/y"}
