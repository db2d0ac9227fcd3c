"""CityLearn 2022: how much power will a home draw in the next hour?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np

from hanse.core.errors import DataError, DataNotFoundError
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.readers.delimited import read_delimited
from hanse.data.sets.folder import find_folder

_WEATHER = (
    "outdoor_dry_bulb_temperature",
    "outdoor_relative_humidity",
    "diffuse_solar_irradiance",
    "direct_solar_irradiance",
)
_OWN = ("non_shiftable_load", "solar_generation")
_CYCLES = (("hour", 24), ("day_type", 7), ("month", 12))


def citylearn(
    *, data_dir: Path | str | None = None, target: Literal["load", "net"] = "load", lags: int = 24
) -> Dataset:
    """17 homes in California, a year of hours: the next hour's consumption, in kWh; group column ``home``.

    Inputs at hour t, all known then: sine and cosine of hour, day of the week and month; four weather readings;
    and the home's load and solar generation at t, t-1, …, t-lags+1. The target is the load at t+1. The
    examples of a home stand in order of time. No official test set.

    Args:
      data_dir: Folder of data sets; it holds ``citylearn_2022/Building_*.csv`` and ``weather.csv``.
      target: ``load`` is the non-shiftable load; ``net`` subtracts the solar generation, which the files give in
        watt-hours for each kW installed: times the home's installed kW (in ``schema.json``) and / 1000.
      lags: Hours of the home's own past, at least 1.

    Raises:
      DataNotFoundError: The files are not there.
      DataError: A home's file does not cover the hours of the weather.

    References:
      Nweye et al. 2022, "The CityLearn Challenge 2022"; data MIT-licensed.
    """
    folder = find_folder("citylearn_2022", data_dir, ("weather.csv", "schema.json"))
    files = sorted(folder.glob("Building_*.csv"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
    if not files:
        raise DataNotFoundError(f"{folder} holds no file Building_*.csv")
    if lags < 1:
        raise DataError(f"lags = {lags}; at least the present hour is needed", hint="lags of 1 or more")
    weather = read_delimited(folder / "weather.csv")
    shared = np.stack([weather[name] for name in _WEATHER], axis=1)
    installed = _installed_kw(folder / "schema.json") if target == "net" else {}
    homes = [_home(file, shared, installed.get(file.name, 0.0), lags) for file in files]
    return Dataset(
        name="citylearn",
        train=Examples.concatenate(homes),
        target="number",
        features=_features(lags),
        groups={
            "home": np.repeat([file.stem.replace("Building_", "home-") for file in files], [len(h) for h in homes])
        },
        description=f"the {target} of a home in the next hour, in kWh",
        source="CityLearn Challenge 2022 (Nweye et al.); MIT licence",
    )


def _features(lags: int) -> tuple[str, ...]:
    cycles = tuple(f"{name}_{wave}" for name, _ in _CYCLES for wave in ("sin", "cos"))
    past = tuple(f"{name}_{lag}h_ago" if lag else name for name in _OWN for lag in range(lags))
    return (*cycles, *_WEATHER, *past)


def _installed_kw(schema: Path) -> dict[str, float]:
    """Solar power of each home in kW, by the name of its file."""
    try:
        homes = json.loads(schema.read_text(encoding="utf-8"))["buildings"].values()
        return {home["energy_simulation"]: float(home["pv"]["attributes"]["nominal_power"]) for home in homes}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{schema} does not say how much solar power each home has ({error!r})") from None


def _home(file: Path, weather: np.ndarray, installed_kw: float, lags: int) -> Examples:
    table = read_delimited(file)
    if len(table) != len(weather):
        raise DataError(f"{file} has {len(table)} hours; the weather has {len(weather)}")
    if len(table) <= lags:
        raise DataError(f"{file} has {len(table)} hours, too few for {lags} lags")
    now = np.arange(lags - 1, len(table) - 1)
    angles = [2 * np.pi * table[name][now] / period for name, period in _CYCLES]
    cycles = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    past = [table[name][now - lag] for name in _OWN for lag in range(lags)]
    load, solar = table["non_shiftable_load"], table["solar_generation"]
    y = load - installed_kw * solar / 1000
    x = np.concatenate([np.stack(cycles, 1), weather[now], np.stack(past, 1)], axis=1)
    return Examples(x.astype(np.float32), y[now + 1].astype(np.float32))
