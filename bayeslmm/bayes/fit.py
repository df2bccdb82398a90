"""`brm`: sample a model's posterior; `BayesFit`: what comes out, with every verb of a fit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.bayes import draws as arrays
from bayeslmm.bayes import summary as summaries
from bayeslmm.bayes.attempts import draw
from bayeslmm.bayes.checks import diagnose, fit_checks, quick_problem
from bayeslmm.bayes.nuts import SECONDS
from bayeslmm.bayes.propriety import refuse_improper
from bayeslmm.bayes.samplers import SAMPLERS, TARGET_ACCEPT, Settings, available_cores, fallback_of, sampler_named, shows_progress
from bayeslmm.bayes.translate import factors
from bayeslmm.checks import model_checks
from bayeslmm.design import weak_groups
from bayeslmm.errors import BayesLmmError, ConvergenceWarning, DataWarning, FitError
from bayeslmm.fit import Diagnostics, Draws
from bayeslmm.model import Model, as_model

if TYPE_CHECKING:
    from bayeslmm.formula import Formula
    from bayeslmm.priors import PriorRow

__all__ = ["BayesFit", "brm", "log_likelihood"]

type Array = np.ndarray

_EAGER = 5_000_000
"""Rows x draws up to which the log-likelihood is put into the tree at once (40 MB)."""


@dataclass(frozen=True, kw_only=True)
class BayesFit:
    """A posterior, drawn by NUTS; made by `brm`.

    Attributes
    ----------
    model
        The `Model` that was fitted.
    tree
        ArviZ `DataTree`: `posterior` holds `b` (dim `fixed`), `sd_<group>`, `cor_<group>`, `r_<group>`, `sigma`, ...;
        `sample_stats`, `observed_data` and `log_likelihood` (left out where rows x draws exceeds 5 million: `log_likelihood(fit)`).
    provenance
        Sampler, sizes, seed, seconds; `sampling_seconds`: the processor time of sampling, all chains together.
    """

    model: Model
    tree: Any = field(repr=False)
    provenance: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Always `"NUTS"`."""
        return "NUTS"

    # --- Draws ----------------------------------------------------------------------------------------------------------------

    @cached_property
    def _draws(self) -> Draws:
        return arrays.draws_of(self.model, self.tree["posterior"].to_dataset())

    def draws(self) -> Draws:
        """Return all parameters, chains one after the other."""
        return self._draws

    @cached_property
    def _means(self) -> Draws:
        return arrays.mean_draw(self._draws)

    @cached_property
    def _fitted(self) -> Array:
        return arrays.posterior_mean_of_response(self.model, self._draws)

    @cached_property
    def _diagnostics(self) -> Diagnostics:
        return Diagnostics(checks=diagnose(self.tree, self.provenance.get("notes")).checks + fit_checks(self) + model_checks(self))

    # --- Estimates ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _estimates(self) -> pd.DataFrame:
        return summaries.estimates_frame(summaries.quantities(self.model, self.tree["posterior"].to_dataset()))

    @property
    def estimates(self) -> pd.DataFrame:
        """Frame `part, group, term, estimate, se, lower, upper`: posterior mean, standard deviation, 95 % equal-tailed interval."""
        return self._estimates.copy()

    def fixef(self) -> pd.Series:
        """Return the posterior means of the fixed effects, by coefficient name."""
        return pd.Series(self._means.b[0], index=list(self.model.design.fixed_names), name="estimate")

    def vcov(self) -> pd.DataFrame:
        """Return the posterior covariance matrix of the fixed effects."""
        names = list(self.model.design.fixed_names)
        b = self._draws.b - self._draws.b.mean(axis=0)
        return pd.DataFrame(b.T @ b / max(len(b) - 1, 1), index=names, columns=names)

    def ranef(self, condsd: bool = False) -> dict[str, Any]:
        """Return group -> frame (levels x effects) of posterior means; with `condsd=True`, pairs (means, standard deviations).

        Unlike those of a classical fit, the standard deviations hold the uncertainty of all parameters.
        """
        result: dict[str, Any] = {}
        for factor in factors(self.model):
            if factor.parameter:
                continue
            r = arrays.flat(self.tree["posterior"][f"r_{factor.label}"])
            frames = [
                pd.DataFrame(values, index=list(factor.levels), columns=list(factor.effects))
                for values in (r.mean(axis=0), r.std(axis=0, ddof=1))
            ]
            result[factor.group] = tuple(frames) if condsd else frames[0]
        return result

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return group -> frame of fixed plus random effects for each level; an effect without a fixed part counts from 0."""
        fixef = self.fixef()
        result = {}
        for group, frame in self.ranef().items():
            columns = list(dict.fromkeys([*fixef.index, *frame.columns]))
            base = pd.DataFrame(
                np.tile(fixef.reindex(columns, fill_value=0.0).to_numpy(), (len(frame), 1)), index=frame.index, columns=columns
            )
            base[frame.columns] += frame
            result[group] = base
        return result

    def varcorr(self) -> pd.DataFrame:
        """Return `group, term1, term2, vcov, sdcor` from the posterior means of standard deviations and correlations."""
        return summaries.varcorr_frame(self.model, self.estimates)

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual scale; 1 for a family that has none."""
        row = self._estimates.query("part == 'aux' and term == 'sigma'")
        if len(row):
            return float(row["estimate"].iloc[0])
        return float(np.mean(self._draws.aux["sigma"])) if "sigma" in self._draws.aux else 1.0

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return len(self.model.design.y)

    @property
    def ngroups(self) -> dict[str, int]:
        """Grouping factor -> number of levels."""
        return {block.group: block.n_levels for block in self.model.design.blocks}

    # --- Rows -----------------------------------------------------------------------------------------------------------------

    def fitted(self) -> pd.Series:
        """Return the posterior mean of the expected response of each row (for binomial, of the probability)."""
        return pd.Series(self._fitted.copy(), index=self.model.design.index, name="fitted")

    def residuals(self, kind: str = "response") -> pd.Series:
        """Return residuals about `fitted()`.

        Parameters
        ----------
        kind
            `"response"`, `"pearson"`, `"deviance"`, `"working"`, `"scaled"` (Pearson over sigma) or `"quantile"`
            (randomised, from the posterior predictive distribution: standard normal where the model holds).

        Raises
        ------
        FitError
            If the kind is unknown.
        """
        values = arrays.residuals(self.model, self._draws, self._fitted, kind)
        return pd.Series(values, index=self.model.design.index, name=f"residual_{kind}")

    def predict(
        self,
        newdata: Any = None,
        *,
        target: str = "conditional",
        new_levels: str = "raise",
        scale: str = "response",
        interval: str | None = None,
        prob: float = 0.95,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Predict rows of the data or of new data; see `bayeslmm.prediction.predict`."""
        from bayeslmm.prediction import predict

        return predict(self, newdata, target=target, new_levels=new_levels, scale=scale, interval=interval, prob=prob, seed=seed)

    def simulate(self, n: int = 1, *, conditional: bool = False, newdata: Any = None, seed: int | None = None) -> pd.DataFrame:
        """Simulate new responses, each from a posterior draw; see `bayeslmm.prediction.simulate`."""
        from bayeslmm.prediction import simulate

        return simulate(self, n, conditional=conditional, newdata=newdata, seed=seed)

    # --- Words and tables -----------------------------------------------------------------------------------------------------

    def diagnose(self) -> Diagnostics:
        """Return the checks of the draws and the sampler, of the posterior (k-hat, conflict of prior and data), and the model's.

        Of the draws: R-hat, bulk and tail effective sample size, Monte-Carlo standard errors; of the sampler: divergences, tree depth,
        E-BFMI, whether it was interrupted.
        """
        return self._diagnostics

    def summary(self) -> summaries.BayesSummary:
        """Return the print-out: `str()` gives text, a notebook shows a table."""
        return summaries.summarise(self)

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Return broom.mixed's columns as for a classical fit, then the convergence of each row's draws.

        They are `effect, group, level, term, estimate, std_error, conf_low, conf_high, statistic` (which a posterior has not: NaN) and
        `rhat, ess_bulk, ess_tail`. The residual standard deviation is `sd__Observation` of group `Residual`.

        Parameters
        ----------
        effects
            One or more of `"fixed"`, `"ran_pars"`, `"ran_vals"`.
        """
        return summaries.tidy(self, effects)

    def glance(self) -> pd.DataFrame:
        """Return one row: `nobs, sigma, n_draws, rhat_max, ess_bulk_min, ess_tail_min, divergences, ok`."""
        return summaries.glance(self)

    def augment(self) -> pd.DataFrame:
        """Return the rows used of the data with `fitted`, `se_fit`, `lower`, `upper`, `fixed`, `resid`."""
        return summaries.augment(self)

    def save(self, path: Any) -> None:
        """Write the fit to one file, which `bayeslmm.load` reads: JSON, arrays and Zarr, with data, priors and all draws.

        Raises
        ------
        PersistenceError
            If the file cannot be written there; what was there is then as it was.
        """
        from bayeslmm.persistence import save

        save(self, path)

    def __str__(self) -> str:
        return str(self.summary())

    def __repr__(self) -> str:
        made = self.provenance
        sizes = f"{made['chains']} chains x {made['draws']} draws"
        return f"<BayesFit {self.model.formula.text}; {self.model.family.name}; {sizes} ({made['sampler']})>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def brm(
    formula: str | Formula | Model,
    data: Any = None,
    family: str = "gaussian",
    *,
    link: str | None = None,
    priors: Sequence[PriorRow] | None = None,
    weights: str | Any | None = None,
    offset: str | Any | None = None,
    contrasts: Mapping[str, Any] | None = None,
    data2: Mapping[str, Any] | None = None,
    na: str = "omit",
    dialect: str = "lme4",
    chains: int = 4,
    draws: int = 1000,
    tune: int = 1000,
    cores: int | None = None,
    seed: int | None = None,
    sampler: str = "auto",
    target_accept: float | None = None,
    progressbar: bool = True,
) -> BayesFit:
    """Fit a mixed model by sampling its posterior with NUTS.

    Parameters
    ----------
    formula, data, family, link, priors, weights, offset, contrasts, data2, na, dialect
        The model, as `model` takes them; or a ready `Model` in place of formula and data. Priors default to weak ones on
        the data's scale, listed by `model(...).priors`.
    chains, draws, tune
        Number of chains; draws kept and tuning draws thrown away, in each chain.
    cores
        Chains run at the same time (default: all cores). The draws do not depend on it.
    seed
        Same seed, same draws. Default: a fresh one, kept in `.provenance`.
    sampler
        `"auto"`: the first of `"collapsed"`, `"direct"` and `"nutpie"` that can sample the model. `"collapsed"` integrates the random
        effects of a Gaussian linear mixed model out, and coefficients of normal or flat priors, and draws them afterwards; it starts from
        the posterior's normal approximation, so that `tune=100` does where time matters. `"direct"` samples generalised ones on a density
        that is compiled already: the same posterior in a fraction of the time. On the PyMC model: `"nutpie"`, `"pymc"`, `"numpyro"`,
        `"blackjax"`.
    target_accept
        NUTS's target acceptance between 0 and 1; raise it against divergences. Default: 0.9, and 0.8 for `"collapsed"`.
    progressbar
        Shown in a terminal only.

    Returns
    -------
    BayesFit

    Raises
    ------
    FormulaError, DataError, PriorError
        As `model` does.
    FitError
        If an option is out of range, the sampler is unknown or it fails.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"), seed=1)  # doctest: +SKIP
    >>> fit.fixef().round(0).tolist()  # doctest: +SKIP
    [251.0, 10.0]
    """
    ready = as_model(
        formula,
        data,
        family,
        link=link,
        priors=priors,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        data2=data2,
        na=na,
        dialect=dialect,
    )
    for sentence in weak_groups(ready.design, residual=ready.family.scale is not None and not ready.design.known_errors):
        warnings.warn(DataWarning("weak_groups", f"{sentence}: its posterior rests on the prior"), stacklevel=2)
    settings = _settings(chains, draws, tune, cores, seed, target_accept, progressbar)
    chosen = sampler_named(sampler, ready)
    if target_accept is None:
        settings = replace(settings, target_accept=SAMPLERS[chosen].target_accept)
    return sample_model(ready, chosen, replace(settings, fallback=fallback_of(chosen, ready) if sampler == "auto" else None))


def _settings(
    chains: int, draws: int, tune: int, cores: int | None, seed: int | None, target_accept: float | None, progressbar: bool
) -> Settings:
    """Check the options of the sampling, and warn where they make a posterior that cannot be judged."""
    for name, value, least in (("chains", chains, 1), ("draws", draws, 1), ("tune", tune, 1), ("cores", 1 if cores is None else cores, 1)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise FitError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if target_accept is not None and not (isinstance(target_accept, (float, np.floating)) and 0 < target_accept < 1):
        raise FitError(f"target_accept must lie between 0 and 1, not {target_accept!r}")
    if seed is not None and (not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63):
        raise FitError(f"seed must be a whole number of at least 0 and below 2^63, not {seed!r}")
    if chains == 1:
        warnings.warn(ConvergenceWarning("one_chain", "one chain cannot show whether chains agree; use four"), stacklevel=3)
    if chains * draws < 400:
        warnings.warn(ConvergenceWarning("few_draws", f"{chains * draws} draws are too few for intervals; use at least 400"), stacklevel=3)
    chosen = int(np.random.SeedSequence().generate_state(1)[0] // 2) if seed is None else int(seed)
    return Settings(
        chains=int(chains),
        draws=int(draws),
        tune=int(tune),
        cores=min(int(cores or available_cores()), int(chains)),
        seed=chosen,
        target_accept=TARGET_ACCEPT if target_accept is None else float(target_accept),
        progressbar=shows_progress(progressbar),
        retry=target_accept is None,
    )


def sample_model(model: Model, sampler: str, settings: Settings) -> BayesFit:
    """Sample a model's posterior with checked settings and return the fit."""
    refuse_improper(model)
    started = time.perf_counter()
    names = arrays.posterior_names(model)
    sampled = draw(sampler, model, names, settings)
    made = sampled.settings
    provenance = {
        "sampler": sampled.sampler,
        "chains": made.chains,
        "draws": made.draws,
        "tune": made.tune,
        "seed": settings.seed,
        "target_accept": made.target_accept,
        "seconds": time.perf_counter() - started,
        "sampling_seconds": sampled.raw["sample_stats"].attrs.get(SECONDS),
        "versions": _versions(("bayeslmm", "pymc", SAMPLERS[sampled.sampler].package, "arviz", "numpy")),
        "notes": sampled.notes,
    }
    fit = BayesFit(model=model, tree=_tree(model, sampled.raw, names), provenance=MappingProxyType(provenance))
    problem = quick_problem(fit.tree, sampled.notes)
    if problem is not None:
        warnings.warn(ConvergenceWarning(*problem), stacklevel=3)
    return fit


def _versions(packages: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _tree(model: Model, raw: Any, names: Sequence[str]) -> Any:
    """Return the tree of a fit: the API's variables of the posterior, statistics, the data, and the log-likelihood."""
    import xarray as xr

    posterior = raw["posterior"].to_dataset()
    wanted = posterior[[name for name in names if name in posterior]]
    unused = [
        name
        for name in wanted.coords
        if name not in ("chain", "draw") and name not in {d for v in wanted.data_vars.values() for d in v.dims}
    ]
    groups = {"posterior": wanted.drop_vars(unused)}
    if "sample_stats" in raw:
        stats = raw["sample_stats"].to_dataset()
        groups["sample_stats"] = stats[[name for name in stats.data_vars if stats[name].dtype != object]]
    obs = {"obs": np.arange(len(model.design.y))}
    groups["observed_data"] = xr.Dataset({"y": (("obs",), model.design.y)}, coords=obs)
    n_draws = wanted.sizes["chain"] * wanted.sizes["draw"]
    if n_draws * len(model.design.y) <= _EAGER:
        values = arrays.log_likelihood(model, arrays.draws_of(model, wanted))
        shape = (wanted.sizes["chain"], wanted.sizes["draw"], -1)
        coords = {"chain": wanted["chain"], "draw": wanted["draw"], **obs}
        groups["log_likelihood"] = xr.Dataset({"y": (("chain", "draw", "obs"), values.reshape(shape))}, coords=coords)
    return xr.DataTree.from_dict(groups)


def log_likelihood(fit: BayesFit) -> Array:
    """Return the log-likelihood (chain, draw, obs) of each row given the random effects, whatever its size.

    Raises
    ------
    BayesLmmError
        If the fit is not a posterior.
    """
    if not isinstance(fit, BayesFit):
        raise BayesLmmError("log_likelihood is of a posterior; fit with `brm`")
    if "log_likelihood" in fit.tree:
        return np.asarray(fit.tree["log_likelihood"]["y"].values)
    sizes = fit.tree["posterior"].sizes
    return arrays.log_likelihood(fit.model, fit.draws()).reshape(sizes["chain"], sizes["draw"], fit.nobs)
