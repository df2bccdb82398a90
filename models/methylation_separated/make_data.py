"""Make `methylation_sets.csv`: one simulated cytosine of an oyster experiment in four versions, two of them separated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SEED = 20191021
FILE = Path(__file__).resolve().parents[2] / "bayeslmm" / "datasets" / "methylation_sets.csv"
LOG_ODDS = {("400", "09"): 1.6, ("400", "80"): 0.9, ("2800", "09"): 2.2, ("2800", "80"): 0.3}


def simulate(seed: int = SEED) -> pd.DataFrame:
    """Return 23 samples of 12 tanks: reads that are methylated (mC) and not (uC), in the sets a to d."""
    rng = np.random.default_rng(seed)
    rows = [(f"T{tank:02d}", "400" if tank <= 6 else "2800", time) for tank in range(1, 13) for time in ("09", "80")]
    rows.remove(("T09", "2800", "80"))  # the sample that the experiment lost
    data = pd.DataFrame(rows, columns=["tank", "treatment", "time"])
    tanks = dict(zip(sorted(set(data["tank"])), rng.normal(scale=0.4, size=12), strict=True))
    reads = 4 + rng.negative_binomial(3, 0.3, size=len(data))
    cells = zip(data["treatment"], data["time"], strict=True)
    eta = np.array([LOG_ODDS[cell] for cell in cells]) + data["tank"].map(tanks).to_numpy()
    methylated = rng.binomial(reads, 1.0 / (1.0 + np.exp(-eta)))
    cell = ((data["treatment"] == "400") & (data["time"] == "09")).to_numpy()
    one = np.flatnonzero(cell)[np.argmax(reads[cell])]
    sets = {"a": methylated, "b": np.where(cell, reads, methylated), "c": np.where(cell, 0, methylated)}
    sets["d"] = np.where(np.arange(len(data)) == one, 1, sets["c"])
    for name, counts in sets.items():
        data[f"mC_{name}"], data[f"uC_{name}"] = counts, reads - counts
    return data


if __name__ == "__main__":
    simulate().to_csv(FILE, index=False, lineterminator="\n")
