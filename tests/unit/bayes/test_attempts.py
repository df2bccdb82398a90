"""A second attempt against divergences, another sampler in a failing one's place, and what Ctrl-C leaves, of samplers made up here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayeslmm as bl
from bayeslmm.bayes.attempts import draw
from bayeslmm.bayes.fit import sample_model
from bayeslmm.bayes.nuts import whole
from bayeslmm.bayes.samplers import AUTO, Sampler, Settings, fallback_of
from bayeslmm.errors import ConvergenceWarning, FitError

CHAINS, DRAWS = 4, 400


def _tree(settings: Settings, divergences: int, seed: int = 1) -> Any:
    """Return what a sampler of `y ~ x` returns: independent draws."""
    rng = np.random.default_rng(seed)
    size = (settings.chains, settings.draws)
    coords = {"chain": np.arange(size[0]), "draw": np.arange(size[1]), "fixed": ["(Intercept)", "x"]}
    posterior = {
        "b": (("chain", "draw", "fixed"), rng.normal(size=(*size, 2))),
        "sigma": (("chain", "draw"), rng.normal(1.0, 0.05, size=size)),
    }
    diverging = np.zeros(size, dtype=bool)
    diverging.flat[:divergences] = True
    stats = {"diverging": (("chain", "draw"), diverging), "energy": (("chain", "draw"), rng.normal(size=size))}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior, coords), "sample_stats": xr.Dataset(stats)})


class Scripted:
    """A sampler that does at each call what it was told: a number of divergences, or an exception; it keeps the settings given."""

    def __init__(self, *script: int | BaseException | Callable[[Settings], Any]):
        self.script, self.given = list(script), list[Settings]()

    def __call__(self, model: bl.Model, names: list[str], settings: Settings) -> Any:
        self.given.append(settings)
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step(settings) if callable(step) else _tree(settings, step, seed=len(self.given))


@pytest.fixture(scope="module")
def model() -> bl.Model:
    rng = np.random.default_rng(3)
    return bl.model("y ~ x", pd.DataFrame({"y": rng.normal(size=30), "x": rng.normal(size=30)}))


def _settings(**options: Any) -> Settings:
    given = {"chains": CHAINS, "draws": DRAWS, "tune": 5, "cores": 1, "seed": 7, "target_accept": 0.9, "progressbar": False}
    return Settings(**given | {"retry": True} | options)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    def install(*script: Any, other: Scripted | None = None) -> Scripted:
        made = Scripted(*script)
        samplers = {"made": Sampler(run=made, package="numpy")}
        samplers |= {"other": Sampler(run=other, package="numpy")} if other is not None else {}
        monkeypatch.setattr("bayeslmm.bayes.samplers.SAMPLERS", samplers)
        monkeypatch.setattr("bayeslmm.bayes.fit.SAMPLERS", samplers)
        return made

    return install


# --- The second attempt -------------------------------------------------------------------------------------------------------


def test_divergences_are_met_by_one_attempt_with_a_higher_target(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    made = scripted(12, 0)
    fit = sample_model(model, "made", _settings())
    first, second = made.given
    assert (first.target_accept, second.target_accept) == (0.9, 0.99)
    assert first.seed != second.seed
    assert fit.provenance["target_accept"] == 0.99
    assert fit.provenance["seed"] == 7
    said = "12 of 1600 transitions diverged at target_accept=0.9, so the model was sampled again at 0.99, where none did"
    assert fit.provenance["notes"] == {"retry": said}
    assert f"Note: {said}." in str(fit.summary())
    assert fit.diagnose().table.set_index("code").loc["divergences", "meaning"] == "no divergent transition in the second attempt"
    np.testing.assert_array_equal(fit.tree["posterior"]["b"], _tree(_settings(), 0, seed=2)["posterior"]["b"])


def test_the_second_attempt_follows_from_the_seed(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    seeds = []
    for seed in (7, 7, 8):
        made = scripted(1, 0)
        draw("made", model, [], _settings(seed=seed))
        seeds.append(made.given[1].seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_there_is_never_a_third_attempt(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    made = scripted(12, 3)
    with pytest.warns(ConvergenceWarning, match=r"\[divergences\] 3 divergent transitions after a second attempt.*target_accept=0.999"):
        fit = sample_model(model, "made", _settings())
    assert len(made.given) == 2
    assert fit.provenance["notes"]["retry"].endswith("where 3 did")
    assert not fit.diagnose().ok


@pytest.mark.parametrize("options", [{"retry": False}, {"target_accept": 0.99}, {"target_accept": 0.995}])
def test_no_attempt_where_it_could_not_help_or_was_not_left_open(options: Any, model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    made = scripted(12)
    assert draw("made", model, [], _settings(**options)).notes == {}
    assert len(made.given) == 1


@pytest.mark.parametrize(("given", "left_open"), [(None, True), (0.9, False), (0.8, False)])
def test_a_target_of_the_users_own_is_kept(given: float | None, left_open: bool, model: bl.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeslmm.bayes.fit.sample_model", lambda *called: called[2])
    settings: Any = bl.brm(model, target_accept=given, seed=1)
    assert settings.retry is left_open


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (ValueError("no point"), r"a second attempt at 0\.99 failed \(the sampler 'made' failed: no point\)"),
        (KeyboardInterrupt(), r"a second attempt at 0\.99 was interrupted"),
        (lambda settings: _tree(_settings(draws=300), 0), r"a second attempt at 0\.99 was interrupted"),
    ],
    ids=["failed", "nothing drawn", "cut short"],
)
def test_where_the_second_attempt_comes_to_nothing_the_first_is_kept(
    failure: Any, words: str, model: bl.Model, scripted: Callable[..., Scripted]
) -> None:
    scripted(12, failure)
    with pytest.warns(ConvergenceWarning, match=r"\[divergences\] 12"):
        fit = sample_model(model, "made", _settings())
    assert fit.tree["posterior"].sizes["draw"] == DRAWS
    assert fit.provenance["target_accept"] == 0.9
    assert pd.Series(fit.provenance["notes"]["retry"]).str.contains(words).all()


# --- Another sampler ----------------------------------------------------------------------------------------------------------


def test_another_sampler_takes_the_place_of_one_that_fails(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    scripted(ValueError("singular"), other=Scripted(0))
    fit = sample_model(model, "made", _settings(fallback="other"))
    assert fit.provenance["sampler"] == "other"
    assert fit.provenance["notes"] == {"fallback": "the sampler 'made' failed: singular; 'other' sampled in its place"}
    assert "(other, seed 7)" in str(fit.summary())
    assert "Note: the sampler 'made' failed: singular" in str(fit.summary())


def test_where_both_fail_the_first_says_why(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    scripted(ValueError("singular"), other=Scripted(TypeError("also")))
    with pytest.raises(FitError, match=r"^the sampler 'made' failed: singular$"):
        sample_model(model, "made", _settings(fallback="other"))


def test_a_sampler_asked_for_by_name_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    monkeypatch.setattr("bayeslmm.bayes.fit.sample_model", lambda *called: called)
    for sampler, chosen, fallback in (("auto", AUTO[0], AUTO[1]), (AUTO[0], AUTO[0], None), (AUTO[-1], AUTO[-1], None)):
        _, name, settings = bl.brm(ready, sampler=sampler, seed=1)  # type: ignore[misc]
        assert (name, settings.fallback) == (chosen, fallback)
    assert fallback_of(AUTO[-1], ready) is None


# --- Ctrl-C -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(9, 9, 9), (9, 4, 0), (9, 5, 0), (9, 5, 5), (3, 3, 0), (0, 0, 7), (2, 9, 2), (0, 0, 0)])
def test_what_is_kept_is_whole_and_most(lengths: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=(3, max(lengths), 2))
    diverging = np.zeros(values.shape[:2])
    for chain, length in enumerate(lengths):
        values[chain, length:], diverging[chain, length:] = np.nan, np.nan
    dims = ("chain", "draw")
    raw = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"b": ((*dims, "k"), values)}), "sample_stats": xr.Dataset({"diverging": (dims, diverging)})}
    )
    kept = whole(raw)
    most = max(k * sorted(lengths, reverse=True)[k - 1] for k in (1, 2, 3))
    b = kept["posterior"]["b"].values
    assert b.shape[0] * b.shape[1] == most
    assert np.isfinite(b).all()
    assert all(any(np.array_equal(one, values[chain, : len(one)]) for chain in range(3)) for one in b)
    assert kept["sample_stats"]["diverging"].shape == b.shape[:2]


def test_draws_before_an_interruption_make_a_fit_that_says_so(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    made = scripted(lambda settings: _tree(_settings(chains=2, draws=300), 5))
    with pytest.warns(ConvergenceWarning, match=r"\[interrupted\] sampling was interrupted: 300 of 400 draws in 2 of 4 chains are there"):
        fit = sample_model(model, "made", _settings())
    assert len(made.given) == 1, "divergences of an interrupted sampling are no reason for another"
    assert (fit.provenance["chains"], fit.provenance["draws"]) == (2, 300)
    check = next(check for check in fit.diagnose() if check.code == "interrupted")
    assert not check.passed
    assert not fit.diagnose().ok
    assert "interrupted: sampling was interrupted" in str(fit.summary())
    assert "2 chains, each 300" in str(fit.summary())


def test_too_few_draws_before_an_interruption_make_none(model: bl.Model, scripted: Callable[..., Scripted]) -> None:
    scripted(lambda settings: _tree(_settings(chains=1, draws=99), 0), other=Scripted(0))
    with pytest.raises(FitError, match=r"interrupted after 99 of 400 draws in 1 of 4 chains: too few to keep \(at least 100 in all\)"):
        sample_model(model, "made", _settings(fallback="other"))


_CTRL_C = """
import json, os, signal, sys, warnings
import bayeslmm as bl, nutpie

tune, least, sampler = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
original, pressed = nutpie.sample, []

def sample(*given, **options):
    def look(chains):
        if not pressed and min(chain.finished_draws for chain in chains) >= least:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)
    return original(*given, **options, progress_callback=look, progress_rate=20)

nutpie.sample = sample
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), chains=2, cores=2, draws=10**7, tune=tune, seed=1,
                     sampler=sampler, progressbar=False)
    except bl.FitError as error:
        print(json.dumps({"error": str(error)}))
        raise SystemExit
kept = fit.tree["posterior"].sizes
print(json.dumps({
    "codes": [warning.message.code for warning in caught], "chains": kept["chain"], "draws": kept["draw"],
    "said": [fit.provenance["chains"], fit.provenance["draws"]], "failed": [check.code for check in fit.diagnose().failed],
    "mean": float(fit.fixef()["(Intercept)"]), "finite": bool((fit.estimates["se"] > 0).all()),
    "default": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
}))
"""


def _after_ctrl_c(tune: int, least: int, sampler: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _CTRL_C, str(tune), str(least), sampler]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout))


@pytest.mark.sampling
@pytest.mark.parametrize("sampler", ["collapsed", pytest.param("nutpie", marks=pytest.mark.slow)])
def test_ctrl_c_keeps_the_draws_so_far(sampler: str) -> None:
    found = _after_ctrl_c(100, 400, sampler)
    assert found["codes"][0] == "interrupted"
    assert found["chains"] == 2
    assert 300 <= found["draws"] < 10**7
    assert found["said"] == [found["chains"], found["draws"]]
    assert "interrupted" in found["failed"]
    assert found["finite"]
    assert found["mean"] == pytest.approx(1527.5, abs=30.0)
    assert found["default"]


@pytest.mark.sampling
def test_ctrl_c_while_tuning_keeps_nothing_and_says_so() -> None:
    assert "sampling was interrupted" in _after_ctrl_c(300_000, 1, "collapsed")["error"]
