"""Saved fits: everything works after loading, whatever the data were; a file that is not what was written is refused in a sentence."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayeslmm as bl
from bayeslmm.bayes import log_likelihood
from bayeslmm.errors import ConvergenceWarning, DataWarning, PersistenceError
from bayeslmm.formula import functions
from bayeslmm.persistence import archive, tables
from bayeslmm.persistence.trees import tree_from, tree_to
from tests.support import ROOT
from tests.unit.fakes import FakeFit

SLEEP = "Reaction ~ Days + (Days | Subject)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"

quiet = pytest.mark.filterwarnings(
    "ignore::bayeslmm.errors.DataWarning", "ignore::bayeslmm.errors.SingularFitWarning", "ignore::bayeslmm.errors.ConvergenceWarning"
)


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Sleepstudy with columns of many kinds, some values missing."""
    rng = np.random.default_rng(3)
    frame = bl.load_dataset("sleepstudy")
    n = len(frame)
    frame = frame.assign(
        weight=rng.uniform(0.5, 2.0, n),
        shift=rng.normal(size=n),
        dose=pd.Categorical(rng.choice(["low", "mid", "high"], n), categories=["low", "mid", "high"], ordered=True),
        late=rng.random(n) < 0.5,
        place=rng.choice(["Zürich", "Aarau", "Chur"], n),
        z=rng.normal(size=n),
        count=rng.poisson(3.0, n),
        day=pd.Categorical(pd.Timestamp("2020-02-27") + pd.to_timedelta(np.arange(n) // 10, unit="D")),
    )
    frame.loc[[3, 50], "z"] = np.nan
    frame.loc[7, "place"] = None
    return frame


@pytest.fixture(scope="module")
def sleep() -> bl.ClassicalFit:
    return bl.lmer(SLEEP, bl.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def posterior() -> bl.BayesFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bl.brm(SLEEP, bl.load_dataset("sleepstudy"), chains=2, draws=250, tune=250, seed=5, sampler="collapsed", progressbar=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fit.blmm"


def again(fit: Any, path: Path) -> Any:
    fit.save(path)
    return bl.load(path)


# Everything works after loading ------------------------------------------------------------------------------------------


def test_a_classical_fit_does_all_that_it_did(sleep: bl.ClassicalFit, path: Path) -> None:
    loaded = again(sleep, path)
    assert isinstance(loaded, bl.ClassicalFit)
    assert loaded.criterion == sleep.criterion
    np.testing.assert_array_equal(loaded.theta, sleep.theta)
    assert str(loaded.summary()) == str(sleep.summary())
    pd.testing.assert_frame_equal(loaded.coefficients("kenward-roger"), sleep.coefficients("kenward-roger"))
    pd.testing.assert_frame_equal(loaded.simulate(3, seed=8), sleep.simulate(3, seed=8), check_exact=True)
    new = pd.DataFrame({"Days": [1.5, 20.0], "Subject": ["308", "nobody"]})
    options: dict[str, Any] = {"new_levels": "average", "interval": "prediction"}
    pd.testing.assert_frame_equal(loaded.predict(new, **options), sleep.predict(new, **options))
    pd.testing.assert_frame_equal(bl.confint(loaded, "wald"), bl.confint(sleep, "wald"))
    pd.testing.assert_frame_equal(loaded.augment(), sleep.augment())
    y = sleep.simulate(1, seed=1)["sim_1"]
    np.testing.assert_allclose(bl.refit(loaded, y).theta, bl.refit(sleep, y).theta, rtol=1e-8)
    assert loaded.search is not None
    assert sleep.search is not None
    assert loaded.search.evaluations == sleep.search.evaluations
    with pytest.raises(ValueError, match="read-only"):
        loaded.theta[0] = 1.0


def test_loaded_fits_are_tested_against_each_other(path: Path, tmp_path: Path) -> None:
    frame = bl.load_dataset("sleepstudy")
    one, two = bl.lmer("Reaction ~ 1 + (1 | Subject)", frame, reml=False), bl.lmer("Reaction ~ Days + (1 | Subject)", frame, reml=False)
    table = bl.anova(again(one, path), again(two, tmp_path / "two.blmm"))
    pd.testing.assert_frame_equal(table, bl.anova(one, two))


def test_a_posterior_does_all_that_it_did(posterior: bl.BayesFit, path: Path) -> None:
    loaded = again(posterior, path)
    assert isinstance(loaded, bl.BayesFit)
    assert loaded.tree.identical(posterior.tree)
    assert {name: value.dtype for name, value in loaded.tree["sample_stats"].data_vars.items()} == {
        name: value.dtype for name, value in posterior.tree["sample_stats"].data_vars.items()
    }
    assert dict(loaded.provenance) == dict(posterior.provenance)
    assert str(loaded.summary()) == str(posterior.summary())
    assert str(loaded.diagnose()) == str(posterior.diagnose())
    pd.testing.assert_frame_equal(loaded.model.priors, posterior.model.priors)
    pd.testing.assert_frame_equal(loaded.simulate(2, seed=4), posterior.simulate(2, seed=4), check_exact=True)
    pd.testing.assert_frame_equal(loaded.predict(target="new_group", seed=1), posterior.predict(target="new_group", seed=1))
    np.testing.assert_array_equal(log_likelihood(loaded), log_likelihood(posterior))


def test_a_comparison_comes_back_on_one_model(sleep: bl.ClassicalFit, posterior: bl.BayesFit, path: Path) -> None:
    from dataclasses import replace

    both = bl.compare(sleep, replace(posterior, model=sleep.model))
    loaded = again(both, path)
    assert isinstance(loaded, bl.Comparison)
    assert loaded.labels == both.labels
    pd.testing.assert_frame_equal(loaded.table, both.table, check_exact=True)
    assert loaded.verdicts == both.verdicts
    assert loaded["REML"].model is loaded["NUTS"].model


def test_an_engine_that_was_refused_is_remembered(posterior: bl.BayesFit, path: Path) -> None:
    alone = bl.Comparison(fits=(posterior,), labels=("NUTS",), table=posterior.estimates, absent=(("REML", "it cannot"),))
    assert again(alone, path).absent == (("REML", "it cannot"),)


def test_what_a_report_says_is_that_of_the_fit(sleep: bl.ClassicalFit, path: Path) -> None:
    from bayeslmm.report.methods import methods_sentences, provenance_rows

    loaded = again(sleep, path)
    assert list(methods_sentences([("REML", loaded)])) == list(methods_sentences([("REML", sleep)]))
    assert list(provenance_rows([("REML", loaded)])) == list(provenance_rows([("REML", sleep)]))


# Whatever the model was made of --------------------------------------------------------------------------------------------

RELATED = pd.DataFrame(0.5 + 0.5 * np.eye(18), index=[str(i) for i in range(18)], columns=[str(i) for i in range(18)])


def _related(data: pd.DataFrame) -> bl.ClassicalFit:
    names = sorted(data["Subject"].astype(str).unique())
    return bl.lmer("Reaction ~ Days + (1 | gr(Subject, cov = K))", data, data2={"K": RELATED.set_axis(names).set_axis(names, axis=1)})


MODELS: Mapping[str, Callable[[pd.DataFrame], bl.ClassicalFit]] = {
    "missing values": lambda d: bl.lmer("Reaction ~ Days + z + place + (Days | Subject)", d),
    "weights by name": lambda d: bl.lmer("Reaction ~ Days + (1 | Subject)", d, weights="weight", offset="shift"),
    "arrays beside missing values": lambda d: bl.lmer(
        "Reaction ~ z + (1 | Subject)", d, weights=d["weight"].where(d.index != 11).to_numpy(), offset=d["shift"].to_numpy()
    ),
    "rows of weight zero": lambda d: bl.lmer("Reaction ~ scale(z) + (1 | Subject)", d, weights=np.where(d.index == 12, 0.0, 1.5)),
    "ordered factors, booleans, text": lambda d: bl.lmer("Reaction ~ dose + late + place + (1 | Subject)", d),
    "contrasts": lambda d: bl.lmer("Reaction ~ dose * late + (1 | Subject)", d, contrasts={"dose": np.array([[1, 0], [0, 1], [-1, -1.0]])}),
    "functions with memory": lambda d: bl.lmer("Reaction ~ poly(Days, 2) + ns(weight, 3) + (1 | Subject)", d),
    "dates as groups": lambda d: bl.lmer("Reaction ~ Days + (1 | day)", d),
    "polars": lambda d: bl.lmer("Reaction ~ Days + place + (1 | Subject)", pl.from_pandas(d.drop(columns="day"))),
    "nullable types": lambda d: bl.lmer("Reaction ~ Days + place + (1 | Subject)", d.convert_dtypes()),
    "two rows of index": lambda d: bl.lmer("Reaction ~ Days + (1 | Subject)", d.set_index(["place", "dose"])),
    "repeated index": lambda d: bl.lmer("Reaction ~ Days + (1 | Subject)", d.set_index("place")),
    "names with spaces": lambda d: bl.lmer(
        "`a time (ms)` ~ Days + (1 | `the/group`)", d.rename(columns={"Reaction": "a time (ms)", "Subject": "the/group"})
    ),
    "columns that are others'": lambda d: bl.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", d),
    "every other column": lambda d: bl.lmer("Reaction ~ . + (1 | Subject)", d[["Reaction", "Days", "dose", "Subject"]]),
    "no random effects": lambda d: bl.lmer("Reaction ~ Days", d),
    "another dialect": lambda d: bl.lmer("Reaction ~ Days + (dose || Subject)", d, dialect="brms", reml=False),
    "crossed, in parts": lambda d: bl.lmer("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject) + (1 | place:dose)", d),
    "a predictor of sigma": lambda d: bl.lmer(bl.formula("Reaction ~ Days + (1 | Subject)", sigma="~ dose"), d, weights="weight"),
    "residuals in time": lambda d: bl.lmer("Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", d),
    "both": lambda d: bl.lmer(bl.formula("Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", sigma="~ weight"), d),
    "a known covariance": _related,
    "counts by Laplace": lambda d: bl.glmer("count ~ Days + (1 | Subject)", d, "poisson", offset=d["weight"].to_numpy()),
    "zeros with a predictor": lambda d: bl.glmer(bl.formula("count ~ Days + (1 | Subject)", zi="~ late"), d, "zero_inflated_poisson"),
    "random effects of a shape": lambda d: bl.glmer(bl.formula("count ~ Days", shape="~ 1 + (1 | Subject)"), d, "negative_binomial"),
    "an ordered response": lambda d: bl.glmer("dose ~ Days + (1 | Subject)", d, "cumulative", link="probit"),
    "a logical response": lambda d: bl.glmer("late ~ Days + (1 | Subject)", d, "bernoulli", link="cloglog"),
    "quadrature": lambda d: bl.glmer(CBPP, bl.load_dataset("cbpp"), n_agq=7),
    "coefficients in the mode": lambda d: bl.glmer(CBPP, bl.load_dataset("cbpp"), n_agq=0),
    "a proportion and its trials": lambda d: bl.glmer(
        "share ~ period + (1 | herd)", bl.load_dataset("cbpp").assign(share=lambda c: c["incidence"] / c["size"]), weights="size"
    ),
    "Jeffreys": lambda d: bl.glmer(CBPP, bl.load_dataset("cbpp"), penalty="jeffreys"),
    "the model's priors": lambda d: bl.glmer(CBPP, bl.load_dataset("cbpp"), penalty="prior"),
    "prior rows as penalty": lambda d: bl.glmer(CBPP, bl.load_dataset("cbpp"), penalty=[bl.prior("cauchy(0, 1)", part="fixed")]),
    "no random effects, penalised": lambda d: bl.glmer("late ~ Days", d, "bernoulli", penalty="normal(0, 1)"),
    "a variance of zero": lambda d: bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")),
    "another response": lambda d: bl.refit(bl.lmer(SLEEP, d), d["Reaction"] + d["shift"]),
    "priors of one's own": lambda d: bl.lmer(bl.model(SLEEP, d, priors=[bl.prior("normal(0, 9)", part="fixed", term="Days", lower=0)])),
}


@quiet
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_any_make_comes_back(name: str, data: pd.DataFrame, path: Path) -> None:
    fit = MODELS[name](data)
    loaded = again(fit, path)
    assert str(loaded.summary()) == str(fit.summary())
    pd.testing.assert_frame_equal(loaded.estimates, fit.estimates, check_exact=True)
    pd.testing.assert_frame_equal(loaded.predict(), fit.predict(), check_exact=True)
    pd.testing.assert_frame_equal(loaded.simulate(1, seed=3), fit.simulate(1, seed=3), check_exact=True)
    pd.testing.assert_frame_equal(loaded.model.priors, fit.model.priors)
    assert loaded.model.design.lost == fit.model.design.lost
    assert loaded.model.design.missing == fit.model.design.missing
    assert str(loaded.model.explain()) == str(fit.model.explain())
    assert str(loaded.diagnose()) == str(fit.diagnose())


DRAWN: Mapping[str, Callable[[pd.DataFrame], bl.Model]] = {
    "a known covariance": lambda d: _related(d).model,
    "residuals in time": lambda d: bl.model("Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", d),
    "random effects in two predictors": lambda d: bl.model(
        bl.formula("count ~ Days + (1 | Subject)", zi="~ late + (1 | Subject)"), d, "zero_inflated_poisson", weights=d["weight"].to_numpy()
    ),
    "priors with bounds, and a horseshoe": lambda d: bl.model(
        "Reaction ~ Days + z + (Days || Subject)",
        d,
        priors=[bl.prior("horseshoe(1)", part="fixed"), bl.prior("gamma(2, 0.1)", part="sd", group="Subject", upper=90)],
        dialect="brms",
    ),
    "missing values, polars": lambda d: bl.model("Reaction ~ z + (1 | Subject:place)", pl.from_pandas(d.drop(columns="day"))),
}


@quiet
@pytest.mark.parametrize("name", DRAWN)
def test_draws_for_a_model_of_any_make_come_back(name: str, data: pd.DataFrame, path: Path) -> None:
    """Draws from the priors stand for a posterior."""
    import xarray as xr

    model = DRAWN[name](data)
    tree = xr.DataTree.from_dict({"posterior": bl.prior_predictive(model, draws=30, seed=2)["prior"].to_dataset()})
    fit = bl.BayesFit(model=model, tree=tree, provenance={"sampler": "none", "chains": 1, "draws": 30, "seed": 2})
    loaded = again(fit, path)
    assert loaded.tree.identical(tree)
    pd.testing.assert_frame_equal(loaded.estimates, fit.estimates, check_exact=True)
    pd.testing.assert_frame_equal(loaded.model.priors, model.priors)
    assert loaded.model.prior_rows == model.prior_rows
    pd.testing.assert_series_equal(loaded.fitted(), fit.fitted(), check_exact=True)


@quiet
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_rung_of_a_remedy_comes_back(data: pd.DataFrame, path: Path) -> None:
    """The reduced model keeps the rows of the first, though its own formula does not ask for the column with missing values."""
    fit = bl.lmer("shift ~ Days + (Days + z | Subject)", data)
    rungs = bl.remedy(fit, nuts=False).rungs
    assert {"MAP", "reduced"} <= set(rungs)
    for rung in rungs.values():
        assert rung.nobs == 178
        loaded = again(rung, path)
        assert str(loaded.summary()) == str(rung.summary())
        np.testing.assert_array_equal(loaded.model.design.kept, rung.model.design.kept)


def test_changes_of_the_users_frame_do_not_reach_the_fit(path: Path) -> None:
    frame = bl.load_dataset("sleepstudy")
    fit = bl.lmer(SLEEP, frame)
    frame["Days"] = 0.0
    assert again(fit, path).model.frame["Days"].max() == 9.0


def test_a_function_of_ones_own_must_be_known(path: Path) -> None:
    bl.register_transform("halved", lambda x: x / 2.0)
    try:
        fit = bl.lmer("Reaction ~ halved(Days) + (1 | Subject)", bl.load_dataset("sleepstudy"))
        assert again(fit, path).fixef().equals(fit.fixef())
    finally:
        del functions.FUNCTIONS["halved"]
    refused(path, "the model cannot be built again: unknown function halved()")


# Frames ------------------------------------------------------------------------------------------------------------------


def test_frames_come_back_with_their_types() -> None:
    import datetime
    import decimal

    frame = pd.DataFrame(
        {
            "tiny": np.array([1, 2, 3], dtype=np.int8),
            "single": np.array([0.1, np.inf, np.nan], dtype=np.float32),
            "truth": [True, False, True],
            "text": ["a", None, "ü"],
            "numbers as factor": pd.Categorical([1.5, 2.0, None], categories=[2.0, 1.5], ordered=True),
            "cut": pd.cut([1.0, 2.0, 3.0], 2),
            "whole": pd.array([2**60 + 1, None, 3], dtype="Int64"),
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "time": pd.to_datetime(["2020-01-01", None, "2024-02-29"]),
            "zone": pd.to_datetime(["2020-01-01", "2020-07-01", None]).tz_localize("Europe/Berlin"),
            "span": pd.to_timedelta([1, 2, 3], unit="h"),
            "month": pd.PeriodIndex(["2020-01", None, "2020-03"], freq="M"),
            "date": [datetime.date(2020, 1, 1), None, datetime.date(2024, 2, 29)],
            "price": [decimal.Decimal("1.10"), None, decimal.Decimal(2)],
            "mixture": [1, "a", None],
        },
        index=pd.MultiIndex.from_arrays([["p", "p", "q"], pd.to_datetime(["2020-01-01"] * 3)], names=["one", None]),
    )
    files: dict[str, bytes] = {}
    plain, left_out = tables.frame_to(frame, files)
    assert left_out == []
    back = tables.frame_from(json.loads(json.dumps(plain, allow_nan=False)), files)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert tables.digest(plain, files) == tables.digest(plain, files)
    others: dict[str, bytes] = {}
    changed, _ = tables.frame_to(frame.assign(tiny=np.array([1, 2, 4], dtype=np.int8)), others)
    assert tables.digest(plain, files) != tables.digest(changed, others)


def test_columns_of_objects_are_left_out_and_named(path: Path) -> None:
    frame = bl.load_dataset("sleepstudy").assign(notes=[["a"]] * 180)
    fit = bl.lmer("Reaction ~ Days + (1 | Subject)", frame)
    with pytest.warns(DataWarning, match="left out of the file: 'notes'"):
        fit.save(path)
    assert "notes" not in bl.load(path).model.frame.columns


def test_names_that_paths_cannot_have() -> None:
    import xarray as xr

    values = (("chain", "draw"), np.arange(6.0).reshape(2, 3))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"r_a\\b": values, "..": values, "50%5C": values, "é ": values})})
    files = tree_to(tree, "trees/0")
    assert all(archive._NAME.fullmatch(name) for name in files)
    assert tree_from(files, "trees/0").identical(tree)


# The file ----------------------------------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def put(path: Path, files: Mapping[str, bytes], *, digests: bool = True) -> None:
    """Write a zip of these entries, with digests that agree if wanted."""
    entries = {name: data for name, data in files.items() if name != "digests.json"}
    made = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in entries.items()}).encode()
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in {**entries, "digests.json": made if digests else files["digests.json"]}.items():
            packed.writestr(name, data)


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a file's JSON, so that its digests agree with it."""
    files = contents(path)
    text = json.loads(files["fit.json"])
    change(text)
    put(path, {**files, "fit.json": json.dumps(text).encode()})


def refused(path: Any, *wanted: str) -> str:
    with pytest.raises(PersistenceError) as raised:
        bl.load(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    for words in wanted:
        assert words in message
    return message


def test_the_file_holds_json_and_arrays_and_says_what_it_was_made_of(posterior: bl.BayesFit, path: Path) -> None:
    posterior.save(path)
    files = contents(path)
    text = json.loads(files["fit.json"])
    assert text["format_version"] == 1
    assert text["versions"]["bayeslmm"] == bl.__version__
    assert len(text["models"][0]["sha256"]) == 64
    assert {name.split("/")[0] for name in files} == {"fit.json", "digests.json", "arrays", "trees"}
    for name, data in files.items():
        if name.startswith("arrays/"):
            assert np.load(io.BytesIO(data), allow_pickle=False).dtype.kind != "O"


def test_other_tools_can_read_the_draws(posterior: bl.BayesFit, path: Path, tmp_path: Path) -> None:
    import xarray as xr

    posterior.save(path)
    with zipfile.ZipFile(path) as packed:
        packed.extractall(tmp_path)
    read = xr.open_zarr(tmp_path / "trees" / "0" / "posterior", consolidated=False)
    np.testing.assert_array_equal(read["sigma"].values, posterior.tree["posterior"]["sigma"].values)


def test_files_are_small(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("name", ["fit.blmm", "fit", "fit.zip", "ein Modell é.blmm"])
def test_any_name_will_do(name: str, sleep: bl.ClassicalFit, tmp_path: Path) -> None:
    sleep.save(str(tmp_path / name))
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert bl.load(str(tmp_path / name)).criterion == sleep.criterion


def test_a_file_is_replaced_only_by_a_whole_one(sleep: bl.ClassicalFit, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep.save(path)
    path.chmod(0o640)
    before = path.read_bytes()

    def full(stream: Any, contents: Any) -> None:
        stream.write(b"PK\x03\x04 half of")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_pack", full)
        with pytest.raises(PersistenceError, match="cannot be written: No space left on device"):
            sleep.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["fit.blmm"]
    sleep.save(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_could_not_be_loaded_is_not_kept(sleep: bl.ClassicalFit, path: Path) -> None:
    from dataclasses import replace

    other = replace(sleep, theta=1.1 * sleep.theta)
    with pytest.raises(PersistenceError, match="is not written, because it could not be loaded again: the fit is not that of its model"):
        other.save(path)
    assert not path.exists()


def test_places_where_no_file_can_be(sleep: bl.ClassicalFit, tmp_path: Path) -> None:
    with pytest.raises(PersistenceError, match="there is no folder"):
        sleep.save(tmp_path / "none" / "fit.blmm")
    with pytest.raises(PersistenceError, match="is a folder; give the name of a file in it"):
        sleep.save(tmp_path)
    for path in (None, 3, "", io.BytesIO()):
        with pytest.raises(PersistenceError, match="a path is text"):
            sleep.save(path)
        with pytest.raises(PersistenceError, match="a path is text"):
            bl.load(path)


def test_other_things_cannot_be_saved(sleep: bl.ClassicalFit, path: Path) -> None:
    from bayeslmm.persistence import save

    fake = FakeFit(sleep.model)
    with pytest.raises(PersistenceError, match="a FakeFit cannot be saved; `save` is for what `lmer`"):
        save(fake, path)
    with pytest.raises(PersistenceError, match="a FakeFit cannot be saved"):
        bl.compare(sleep, fake).save(path)


def test_what_is_no_saved_fit(tmp_path: Path) -> None:
    refused(tmp_path / "none.blmm", "no such file")
    refused(tmp_path, "is a folder, not a saved fit")
    other = tmp_path / "other.blmm"
    for data in (b"", b"nothing", b"PK", b"\x80\x04\x95 a pickle"):
        other.write_bytes(data)
        refused(other, "is not a file that `fit.save` wrote")
    with zipfile.ZipFile(other, "w") as packed:
        packed.writestr("word/document.xml", "<a/>")
    refused(other, "is a zip file, but not one that `fit.save` wrote")
    put(other, {"fit.json": b'{"format": "another", "format_version": 1}'})
    refused(other, "is a zip file, but not one that `fit.save` wrote")
    put(other, {"fit.json": b"[1]"})
    refused(other, "is a zip file, but not one that `fit.save` wrote")
    put(other, {"fit.json": b"{" * 100_000})
    refused(other, "fit.json is not JSON")


def test_a_later_format_is_named(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    changed(path, lambda text: text.update(format_version=7, versions={"bayeslmm": "9.1"}))
    refused(path, "has format 7, written by bayeslmm 9.1; this version reads formats up to 1: update bayeslmm")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_a_file_cut_short(share: float, sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "is damaged or cut short")


def test_every_changed_byte_is_noticed(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    whole = path.read_bytes()
    entries = zipfile.ZipFile(path).infolist()
    for entry in entries:
        data = bytearray(whole)
        data[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0x10
        path.write_bytes(data)
        refused(path)


def test_an_entry_that_does_not_agree_with_its_digest(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    files = contents(path)
    text = files["fit.json"].replace(b'"REML"', b'"ML"')
    put(path, {**files, "fit.json": text}, digests=False)
    refused(path, "was changed after it was written (fit.json); take another copy, or fit again")
    put(path, {name: data for name, data in files.items() if name != "arrays/0003.npy"}, digests=False)
    refused(path, "was changed after it was written (arrays/0003.npy)")


def test_another_response_is_another_objective(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    files = contents(path)
    name = json.loads(files["fit.json"])["models"][0]["y"]
    stream = io.BytesIO()
    np.save(stream, np.load(io.BytesIO(files[name])) + np.arange(180.0) / 100.0)
    put(path, {**files, name: stream.getvalue()})
    refused(path, "the fit is not that of its model and data any more: its criterion was 1743.628272 and is ", "fit the model again")


def test_other_parameters_are_another_objective(sleep: bl.ClassicalFit, posterior: bl.BayesFit, path: Path) -> None:
    sleep.save(path)
    changed(path, lambda text: text["fits"][0]["values"].update(method="ML"))
    refused(path, "its criterion was 1743.628272 and is ")
    posterior.save(path)
    changed(path, lambda text: text["fits"][0]["objective"].update(list=[-800.0] * 5))
    refused(path, "its log-likelihood of some draws was -800, ")


def test_other_data_are_noticed(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    changed(path, lambda text: text["models"][0].update(sha256="0" * 64))
    refused(path, "the data are not those that the model was fitted to")
    sleep.save(path)
    changed(path, lambda text: text["models"][0]["formula"].update(text="Reaction ~ Subject + (Days | Subject)"))
    refused(path, "the predictor of the mean has other coefficients or levels than when it was saved: Days, Subject309")
    sleep.save(path)
    changed(path, lambda text: text["models"][0]["formula"].update(text="Reaction ~ Weeks + (Days | Subject)"))
    refused(path, "the model cannot be built again: the data has no column 'Weeks'")


def test_parts_that_are_missing_or_unknown(sleep: bl.ClassicalFit, path: Path) -> None:
    for change, words in (
        (lambda text: text.pop("fits"), "the file is incomplete (KeyError: 'fits')"),
        (lambda text: text["fits"][0].update(kind="spline"), "a fit of unknown kind 'spline'"),
        (lambda text: text["fits"][0]["values"].update(theta={"array": "arrays/9999.npy"}), "the array 'arrays/9999.npy' is missing"),
        (lambda text: text["fits"][0]["values"].update(theta={"pickle": "gASV"}), "a value of unknown kind 'pickle'"),
        (lambda text: text["fits"][0]["values"].update(search={"record": "Popen", "fields": {}}), "a record of unknown kind 'Popen'"),
        (lambda text: text["fits"][0]["values"]["search"]["fields"].update(more=1), "a record that cannot be read"),
        (lambda text: text["models"][0].pop("y"), "the file is incomplete (KeyError: 'y')"),
        (lambda text: text["models"][0]["frame"].pop("index"), "the data frame in the file cannot be read"),
    ):
        sleep.save(path)
        changed(path, change)
        refused(path, words)


def test_whatever_is_changed_in_the_text_is_refused_in_a_sentence_or_does_not_matter(sleep: bl.ClassicalFit, path: Path) -> None:
    """One entry of the JSON at a time is taken out or replaced, with digests that agree."""
    import random

    sleep.save(path)
    files = contents(path)
    whole = json.loads(files["fit.json"])
    rng = random.Random(4)
    places = [place for place in _places(whole) if place]
    for place in rng.sample(places, 60):
        text = json.loads(files["fit.json"])
        inner = text
        for key in place[:-1]:
            inner = inner[key]
        if isinstance(inner, dict) and rng.random() < 0.3:
            inner.pop(place[-1])
        else:
            inner[place[-1]] = rng.choice([None, -1, 1e308, "x", [], {}, {"a": 1}, {"array": "arrays/0000.npy"}, 10**30])
        put(path, {**files, "fit.json": json.dumps(text).encode()})
        try:
            bl.load(path)
        except PersistenceError as error:
            assert str(error).startswith(str(path))  # noqa: PT017


def _places(value: Any, at: tuple[Any, ...] = ()) -> Any:
    yield at
    for key, item in value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ():
        yield from _places(item, (*at, key))


@pytest.mark.parametrize(
    "name",
    ["../evil.npy", "/etc/passwd", "arrays/../../x.npy", "trees/0/../../x", "C:\\x.npy", "trees\\0\\x", "arrays/0.pkl", "trees/0//x"],
)
def test_names_outside_of_the_file_are_not_opened(name: str, sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    put(path, {**contents(path), name: b"1"})
    refused(path, f"holds the entry {name!r}, which no saved fit has; it is not opened")


def test_files_that_would_unpack_to_much_more_are_not_opened(sleep: bl.ClassicalFit, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_ALWAYS_ALLOWED", 2**20)
    sleep.save(path)
    files = contents(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in {**files, "arrays/9999.npy": bytes(2**25)}.items():
            packed.writestr(name, data)
    refused(path, "would unpack to 34 MB; no saved fit does, so it is not opened")


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_arrays_of_objects_or_of_claimed_sizes_are_not_read(sleep: bl.ClassicalFit, path: Path) -> None:
    sleep.save(path)
    files = contents(path)
    name = json.loads(files["fit.json"])["fits"][0]["values"]["theta"]["array"]
    for data, words in (
        (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", b"\x80\x04N."), "is not an array of numbers of the size"),
        (_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", bytes(24)), "is not an array of numbers of the size"),
        (_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}", bytes(24)), "is not an array"),
        (_npy("__import__('os').system('true')"), "is not an array"),
        (b"nothing", "is not an array"),
    ):
        put(path, {**files, name: data})
        refused(path, f"{name} ", words)


def test_codecs_and_types_that_could_run_something_are_not_read(posterior: bl.BayesFit, path: Path) -> None:
    posterior.save(path)
    files = contents(path)
    head = json.loads(files["trees/0/posterior/sigma/zarr.json"])

    def with_head(**parts: Any) -> None:
        put(path, {**files, "trees/0/posterior/sigma/zarr.json": json.dumps({**head, **parts}).encode()})

    with_head(codecs=[*head["codecs"], {"name": "numcodecs.pickle", "configuration": {}}])
    refused(path, "codecs bytes, zstd, numcodecs.pickle, which no saved fit has")
    with_head(data_type="object")
    refused(path, "have type object")
    with_head(shape=[10**9, 10**6])
    refused(path, "claim 8000000", "far more than the file can hold")
    with_head(shape=[2])
    refused(path)
    put(path, {**files, "trees/0/posterior/sigma/zarr.json": b"{}"})
    refused(path, "the draws in the file cannot be read")


def test_a_fit_is_loaded_in_another_process_without_pymc(sleep: bl.ClassicalFit, posterior: bl.BayesFit, tmp_path: Path) -> None:
    sleep.save(tmp_path / "one.blmm")
    posterior.save(tmp_path / "two.blmm")
    code = (
        "import sys, bayeslmm as bl\n"
        "one, two = (bl.load(path) for path in sys.argv[1:])\n"
        "print(one.criterion.hex(), two.sigma.hex(), 'pymc' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "one.blmm"), str(tmp_path / "two.blmm")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.split() == [sleep.criterion.hex(), posterior.sigma.hex(), "False"]
