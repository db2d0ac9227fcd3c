"""Early stopping, decided from the committed history alone, so that a resumed run decides alike."""

from __future__ import annotations

from hanse.rounds.history import History
from hanse.rounds.settings import StopSettings


def stop_reason(history: History, settings: StopSettings) -> str | None:
    """Why to stop after the newest round, in words; None to go on."""
    series = history.objective_series()
    if not series or history.last is None or history.last.round not in series:
        return None
    name, direction = history.objective
    value = series[history.last.round]
    sign = 1.0 if direction == "max" else -1.0
    if settings.target is not None and sign * value >= sign * settings.target:
        return f"{name} reached {value:.4g}, the target was {settings.target:g}"
    if settings.patience is None:
        return None
    best_round, best = next(iter(series.items()))
    for number, found in series.items():
        if sign * found > sign * best + settings.min_delta or best != best:  # anything is better than NaN
            best_round, best = number, found
    waited = history.last.round - best_round
    if waited >= settings.patience:
        return f"{name} has not improved for {waited} rounds (best {best:.4g} in round {best_round})"
    return None
