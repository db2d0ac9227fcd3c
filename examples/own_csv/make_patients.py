"""Writes patients.csv: made-up patients of four clinics, for an example of a table of one's own."""

import csv
from pathlib import Path

import numpy as np

CLINICS = {"north": 300, "south": 120, "east": 60, "harbour": 30}


def main() -> None:
    """Write the file beside this one."""
    rng = np.random.default_rng(7)
    path = Path(__file__).with_name("patients.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clinic", "age", "days_in_hospital", "medication", "lives_alone", "readmitted"])
        for number, (clinic, count) in enumerate(CLINICS.items()):
            age = np.clip(rng.normal(55 + 5 * number, 15, count), 18, 99).round().astype(int)
            days = rng.poisson(3 + number, count) + 1
            medication = rng.choice(["none", "some", "many"], count, p=[0.3, 0.5, 0.2])
            alone = rng.random(count) < 0.35
            score = 0.12 * (age - 60) + 0.7 * (days - 5) + 2.5 * (medication == "many") + 1.5 * alone
            readmitted = rng.random(count) < 1 / (1 + np.exp(-score))
            for row in zip(age, days, medication, alone, readmitted, strict=True):
                a, d, m, lives_alone, again = row
                writer.writerow([clinic, a, d, m, "yes" if lives_alone else "no", "yes" if again else "no"])


if __name__ == "__main__":
    main()
