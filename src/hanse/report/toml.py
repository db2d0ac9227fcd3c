"""A job's plain values as TOML text."""

from __future__ import annotations

from collections.abc import Mapping

import tomli_w


def to_toml(values: Mapping[str, object]) -> str:
    """The values as TOML, settings before tables, keys in their own order.

    TOML has no null: keys whose value is None are left out, in lists too, which for a job
    means the same, since None is every such setting's default.

    >>> print(to_toml({"rounds": 3, "target": None, "data": {"use": "digits"}}), end="")
    rounds = 3
    <BLANKLINE>
    [data]
    use = "digits"
    """
    plain = _without_none(values)
    assert isinstance(plain, dict)
    return tomli_w.dumps(plain, multiline_strings=False)


def _without_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value if item is not None]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
