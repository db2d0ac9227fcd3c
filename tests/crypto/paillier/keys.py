"""One key for all tests: that of the reference vectors, which everybody knows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hanse.crypto.paillier.keys import SecretKey

VECTORS = Path(__file__).parents[2] / "vectors" / "paillier.json"


@cache
def vectors() -> dict[str, Any]:
    return json.loads(VECTORS.read_text())


@cache
def known_key() -> SecretKey:
    given = vectors()
    return SecretKey(int(given["p"], 16), int(given["q"], 16), int(given["h_s"], 16))
