"""Simulation-based calibration: the study's own parts on ranks made up here; slow: all samplers on 1000 data sets of each design."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.support import ROOT

SETS = 1000


def _study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbc", ROOT / "benchmarks" / "sbc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sbc"] = module
    spec.loader.exec_module(module)
    return module


STUDY = _study()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ranks: an hour of work, which `BAYESLMM_SBC_STATE` keeps from one run to the next."""
    return Path(os.environ.get("BAYESLMM_SBC_STATE") or tmp_path_factory.mktemp("sbc"))


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.parametrize("place", range(len(STUDY.studies(Path()))), ids=[study.name for study in STUDY.studies(Path())])
def test_ranks_lie_inside_the_band(place: int, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # where the workers find the study
    study = STUDY.studies(state)[place]
    STUDY.run(study, SETS, workers=2)
    records = study.records(SETS)
    assert len(records) == SETS
    p = STUDY.p_values(STUDY.ranks_frame(records))
    assert p.min() * len(p) >= 1.0 - STUDY.LEVEL, p.sort_values().head(3)
    assert np.mean([record["correlation"] for record in records]) < 0.1, "draws are thinned too little to be ranked"


# --- The study's own parts ----------------------------------------------------------------------------------------------------


def _ranks(spread: float = 1.0, shift: float = 0.0, sets: int = SETS) -> pd.DataFrame:
    """Ranks of standard normal truths among draws of a normal distribution that is too wide or too narrow, or beside the mark."""
    rng = np.random.default_rng(7)
    truth, draws = rng.normal(size=sets), rng.normal(shift, spread, size=(sets, STUDY.KEPT))
    return pd.DataFrame({"b": (draws < truth[:, None]).sum(axis=1)})


@pytest.mark.parametrize(("spread", "shift"), [(0.75, 0.0), (1.35, 0.0), (1.0, 0.2), (1.0, -0.2)])
def test_a_posterior_that_is_wrong_leaves_the_band(spread: float, shift: float) -> None:
    wrong, right = _ranks(spread, shift), _ranks()
    assert STUDY.p_values(wrong)["b"] < 0.001
    assert STUDY.p_values(right)["b"] > 0.01
    lower, upper = STUDY.band(SETS)
    expected = np.arange(1, STUDY.KEPT + 1) / (STUDY.KEPT + 1)
    for found, inside in ((wrong, False), (right, True)):
        ecdf = STUDY.counts_of(found.to_numpy())[0] / SETS - expected
        assert bool(np.all((ecdf >= lower - 1e-12) & (ecdf <= upper + 1e-12))) is inside


def test_the_band_holds_what_it_says() -> None:
    rng = np.random.default_rng(3)
    found = pd.DataFrame(rng.integers(0, STUDY.KEPT + 1, size=(SETS, 2000)))
    p = STUDY.p_values(found)
    for level in (0.01, 0.1, 0.5):
        assert np.mean(p < level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))


def test_the_band_is_that_of_arviz() -> None:
    from arviz_stats.ecdf_utils import ecdf_pit

    z = np.arange(1, STUDY.KEPT + 1) / (STUDY.KEPT + 1)
    points, _, low, high = ecdf_pit(np.random.default_rng(1).uniform(size=SETS), STUDY.LEVEL, 1000)
    for own, theirs in zip(STUDY.band(SETS), (low - points, high - points), strict=True):
        np.testing.assert_allclose(own, np.interp(z, points, theirs), atol=0.005)


def test_a_run_is_continued_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def ranks(case: str, sampler: str, number: int) -> dict[str, Any]:
        made.append(number)
        return {"set": number, "ranks": {"b": number % 100}, "divergences": 0, "correlation": 0.0}

    monkeypatch.setattr(STUDY, "ranks", ranks)
    study = STUDY.studies(tmp_path, ["collapsed"], ["nested"])[0]
    STUDY.run(study, 30, workers=1)
    whole = study.path.read_text(encoding="utf8")
    study.path.write_text(whole[: len(whole) - 5], encoding="utf8")
    assert len(study.records(30)) == 29
    STUDY.run(study, 35, workers=1)
    assert made == [*range(30), *range(29, 35)]
    assert [record["set"] for record in study.records(35)] == list(range(35))
    assert len(study.records(10)) == 10


@pytest.mark.parametrize("name", STUDY.CASES)
def test_truth_has_a_value_for_each_parameter_and_comes_from_its_prior(name: str) -> None:
    case = STUDY.CASES[name]
    truths = pd.DataFrame([STUDY.simulated(case, number)[0] for number in range(400)])
    again, y, seed = STUDY.simulated(case, 3)
    assert again == truths.iloc[3].to_dict()
    np.testing.assert_array_equal(y, STUDY.simulated(case, 3)[1])
    assert seed == STUDY.simulated(case, 3)[2]
    estimates = len(STUDY.model_of(name).prior_rows)
    effects = sum(len(term.effects) for term in case.terms)
    assert truths.shape[1] == estimates + effects + 1
    assert np.isfinite(truths).all(axis=None)
    for row in STUDY.model_of(name).prior_rows:
        column = {"fixed": f"b[{row.term}]", "sd": f"sd_{row.group}[{row.term}]", "aux": row.term}.get(row.part)
        if column is None:
            continue
        prior = row.distribution.kind.scipy(*row.distribution.args)
        below = prior.cdf(0.0) if row.part != "fixed" else 0.0
        uniform = (prior.cdf(truths[column]) - below) / (1.0 - below)
        assert stats.kstest(uniform, "uniform").pvalue > 0.001, column


def test_table_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _ranks(sets=60)["b"].tolist()
    monkeypatch.setattr(
        STUDY, "ranks", lambda case, sampler, k: {"set": k, "ranks": {"b": found[k], "s": 0}, "divergences": k % 2, "correlation": 0.0}
    )
    some = STUDY.studies(tmp_path, ["collapsed"], ["nested", "crossed"])
    for study in some:
        STUDY.run(study, 60, workers=1)
    table = STUDY.table(some, 60)
    assert list(table["all inside the joint 99 % band"]) == ["NO", "NO"]
    assert list(table["outside their own 99 % band"]) == ["s", "s"]
    assert list(table["sets with divergences"]) == [30, 30]
    STUDY.figure(some, 60, tmp_path / "sbc.svg")
    assert (tmp_path / "sbc.svg").stat().st_size > 5000
    assert STUDY.page(table, 60, "sbc.svg").count("| nested |") == 1
