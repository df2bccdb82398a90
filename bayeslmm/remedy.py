"""`remedy`: for a singular, flat or failed fit the ways out of it, side by side, and the sentence to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.penalty import Penalty
from bayeslmm.classical.reduce import fit_again, principal_components, reduced
from bayeslmm.compare import AGREE, DIFFER, Comparison, html_table, side_by_side, text_table
from bayeslmm.errors import BayesLmmError, FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["REMEDY_COLUMNS", "Remedy", "remedy"]

type Array = np.ndarray

REMEDY_COLUMNS = ("rung", "formula", "part", "group", "term", "estimate", "se", "verdict")
PENALISED, MAP, REDUCED, NUTS = "penalised", "MAP", "reduced", "NUTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """The ladder out of a singular, separated, flat or failed fit; made by `remedy`.

    Attributes
    ----------
    rungs
        Label -> fit, in order: the fit as it was (`REML`, `ML`, `Laplace`), `penalised` of separated data, `MAP`, `reduced`, `NUTS`.
        A sound fit is the only rung.
    steps
        What was done to the random effects on the rung `reduced`, a sentence for each change.
    components
        The principal components of the first fit's random effects: `group, component, sd, share, cumulative`.
    sentence
        What to report: what was wrong, what was done, and whether the fixed effects of interest depend on it.
    absent
        Rung -> why it is not there.
    """

    rungs: Mapping[str, Fit]
    steps: tuple[str, ...]
    components: pd.DataFrame
    sentence: str
    absent: tuple[tuple[str, str], ...] = ()

    @property
    def needed(self) -> bool:
        """Whether there was anything to remedy."""
        return len(self.rungs) > 1

    @property
    def table(self) -> pd.DataFrame:
        """One row for each rung and estimate: `rung, formula, part, group, term, estimate, se, verdict`.

        `verdict`: against the first rung, of separated data against the penalised one, as in a `Comparison`: in standard errors (the
        larger of both) `agree` up to 0.25, `close` up to 1, then `differ`; or what a zero variance in one of them makes of it.
        """
        base = self.rungs[_base(self.rungs)]
        return pd.concat(
            [_long(label, fit, base, judged=_judged(self.rungs, label)) for label, fit in self.rungs.items()], ignore_index=True
        )

    @property
    def comparison(self) -> Comparison:
        """The rungs side by side, as `compare` puts fits; it has `.table` and `.plot()`."""
        return side_by_side(list(self.rungs.values()), list(self.rungs))

    def _plain(self) -> Comparison:
        """Return the comparison without the differences between first and last, of which a ladder has more."""
        whole = self.comparison
        return replace(whole, table=whole.table.drop(columns=["difference", "difference_in_se", "verdict"], errors="ignore"))

    def __getitem__(self, rung: str) -> Fit:
        """Return the fit of that rung (`"REML"`, `"MAP"`, `"reduced"`, `"NUTS"`)."""
        if rung not in self.rungs:
            raise FitError(f"there is no rung {rung!r}{suggest(str(rung), list(self.rungs))} (rungs: {', '.join(self.rungs)})")
        return self.rungs[rung]

    def __str__(self) -> str:
        if not self.needed:
            return self.sentence
        formulas = [f"{label}: {fit.model.formula.text} ({_verdict(fit)})" for label, fit in self.rungs.items()]
        steps = [f"{REDUCED}, step {i}: {step}." for i, step in enumerate(self.steps, start=1)]
        missing = [f"{label} is not there: {reason}" for label, reason in self.absent]
        return "\n".join([text_table(self._plain()), "", *formulas, *steps, *missing, "", self.sentence])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        if not self.needed:
            return f"<p>{escape(self.sentence)}</p>"
        steps = "".join(f"<li>{escape(step)}</li>" for step in (*self.steps, *(f"no {label}: {reason}" for label, reason in self.absent)))
        return f"{html_table(self._plain())}<ol>{steps}</ol><p>{escape(self.sentence)}</p>"


def remedy(
    fit: ClassicalFit,
    *,
    nuts: bool = True,
    terms: Sequence[str] | str | None = None,
    seed: int | None = None,
    chains: int = 4,
    draws: int = 1000,
    tune: int = 1000,
    cores: int | None = None,
    target_accept: float | None = 0.95,
    progressbar: bool = True,
) -> Remedy:
    """Show the ways out of a singular, separated, flat or failed fit side by side, and say what to report.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned. Where it is sound, nothing is fitted and the sentence says so.
    nuts
        Whether to sample the posterior of the full model too, under its visible default priors.
    terms
        Fixed effects of interest, by name; None for all but the intercept (or the intercept, where it is alone). The sentence
        says how far they move.
    seed, chains, draws, tune, cores, target_accept, progressbar
        The sampling, as `brm` takes them; short steps by default, since a variance near zero makes a posterior narrow.

    Returns
    -------
    Remedy
        Up to five rungs. The fit as it is. `penalised`, of separated data: coefficients at the mode under Jeffreys' prior (Firth's), or
        where the family has no simple one, under the model's own priors; the rungs after it keep it, and are there where it is still
        singular. `MAP`: theta maximises the (restricted) likelihood times a prior that is zero on the boundary
        and flat far from it: sd_1 for a single effect, which is gamma(2, 0) on its standard deviation; the root of the determinant for a
        covariance matrix, which is Wishart with k + 2 degrees of freedom and an infinite scale; both of the covariance relative
        to the residual variance, as `blme`'s `common.scale = TRUE`; for other structures the product of their own standard
        deviations and of sqrt((rho - lower)(upper - rho)). Fixed effects and their standard errors are conditional on that theta,
        as ever. `reduced`: effects and correlations without a variance left out, step by step (`.steps`). `NUTS`: the posterior.

    Raises
    ------
    FitError
        For a fit that is not from `lmer` or `glmer`, and for unknown coefficients.

    Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78, 685-709; Chung, Gelman, Rabe-Hesketh, Liu & Dorie
    (2015), J. Educ. Behav. Stat. 40, 136-157; Bates, Kliegl, Vasishth & Baayen (2015), arXiv:1506.04967; Firth (1993), Biometrika 80.

    Examples
    --------
    >>> import warnings
    >>> import bayeslmm as bl
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    >>> ladder = bl.remedy(fit, nuts=False)
    >>> list(ladder.rungs), ladder["reduced"].model.formula.text
    (['REML', 'MAP', 'reduced'], 'Yield ~ 1')
    """
    if not isinstance(fit, ClassicalFit):
        raise FitError(f"remedy takes a fit from `lmer` or `glmer`, not a {type(fit).__name__}; for a posterior see its `diagnose()`")
    from bayeslmm.bayes import brm

    wanted = _of_interest(fit, terms)
    trouble = _trouble(fit)
    components = principal_components(fit)
    if not trouble:
        rungs: Mapping[str, Fit] = MappingProxyType({fit.method: fit})
        return Remedy(rungs=rungs, steps=(), components=components, sentence=_nothing(fit))
    base = _penalised(fit) if "separated" in trouble else fit
    steps: list[str] = []

    def smaller() -> Fit:
        reduction = reduced(base)
        steps.extend(reduction.steps)
        return reduction.fit

    def posterior() -> Fit:
        return brm(
            fit.model,
            seed=seed,
            chains=chains,
            draws=draws,
            tune=tune,
            cores=cores,
            target_accept=target_accept,
            progressbar=progressbar,
        )

    ways: dict[str, Callable[[], Fit]] = {}
    if base.is_singular or base.convergence in ("flat", "failed"):
        ways = {MAP: lambda: fit_again(base, base.model, avoid_boundary=True), REDUCED: smaller}
    found: dict[str, Fit] = {fit.method: fit, **({} if base is fit else {PENALISED: base})}
    absent: list[tuple[str, str]] = []
    for rung, way in {**ways, **({NUTS: posterior} if nuts else {})}.items():
        try:
            found[rung] = way()
        except BayesLmmError as refusal:
            absent.append((rung, str(refusal)))
    return Remedy(
        rungs=MappingProxyType(found),
        steps=tuple(steps),
        components=components,
        sentence=_sentence(found, trouble, wanted),
        absent=tuple(absent),
    )


def _penalised(fit: ClassicalFit) -> ClassicalFit:
    """Return the fit by Jeffreys' prior, or by the model's own priors where the family has no simple one."""
    try:
        return fit_again(fit, fit.model, penalty=Penalty(name="jeffreys"))
    except FitError:
        return fit_again(fit, fit.model, penalty=Penalty(name="prior"))


def _of_interest(fit: ClassicalFit, terms: Sequence[str] | str | None) -> list[str]:
    names = list(fit.model.design.fixed_names)
    if terms is None:
        return [name for name in names if name != "(Intercept)"] or names
    wanted = [terms] if isinstance(terms, str) else list(terms)
    for name in wanted:
        if name not in names:
            raise FitError(f"there is no coefficient {name!r}{suggest(str(name), names)} (coefficients: {', '.join(names)})")
    return wanted


# ----------------------------------------------------------------------------------------------------------------------- the words


def _verdict(fit: Fit) -> str:
    """Say in words what a fit's checks found."""
    failed = [check.code for check in fit.diagnose().failed if check.severity == "error"]
    return f"checks failed: {', '.join(failed)}" if failed else "passed its checks"


_TROUBLES = MappingProxyType(
    {"separated": "was separated", "singular": "was singular", "curvature": "was flat", "gradient": "did not converge"}
)
"""Check that failed -> what the fit was."""


def _trouble(fit: ClassicalFit) -> Mapping[str, str]:
    """Return what is wrong with a fit: code of the check -> words; that a separated fit is flat goes without saying."""
    failed = {check.code: check for check in fit.diagnose().failed}
    found = {code: f"{words} ({failed[code].meaning})" for code, words in _TROUBLES.items() if code in failed}
    return {code: words for code, words in found.items() if "separated" not in found or code in ("separated", "singular")}


def _nothing(fit: ClassicalFit) -> str:
    return (
        f"Nothing to remedy: the {fit.method} fit of {fit.model.formula.text} converged, its optimum is no plateau, and no variance is "
        "zero and no correlation one."
    )


def _sentence(rungs: Mapping[str, Fit], trouble: Mapping[str, str], wanted: Sequence[str]) -> str:
    first = next(iter(rungs))
    start = f"The {first} fit of {rungs[first].model.formula.text} {' and '.join(trouble.values())}."
    return " ".join([start, _done(rungs), *_changes(rungs, wanted)])


_WAYS = MappingProxyType(
    {
        PENALISED: "with a penalty of the coefficients ({penalty}; posterior mode; Firth, 1993)",
        MAP: "with boundary-avoiding priors (posterior mode; Chung et al., 2013, 2015)",
        REDUCED: "with the random effects that the data support (Bates et al., 2015: {formula})",
        NUTS: "by NUTS, under the priors of the model",
    }
)


def _done(rungs: Mapping[str, Fit]) -> str:
    named = []
    for rung, way in _WAYS.items():
        if rung in rungs:
            model = rungs[rung].model
            text = model.formula.text + ("" if model.design.blocks else ", without random effects")
            way = way.format(formula=text, penalty=_penalty_of(rungs[rung]))
            named.append(way if rungs[rung].diagnose().ok else f"{way} ({_verdict(rungs[rung])}: not to be relied on)")
    return f"The model was fitted again {'; '.join(named)}."


def _penalty_of(fit: Fit) -> str:
    penalty = getattr(fit, "penalty", None)
    return "" if penalty is None else penalty.name


def _changes(rungs: Mapping[str, Fit], wanted: Sequence[str]) -> list[str]:
    """Say how far the coefficients of interest move, and how much their standard errors change."""
    first = _base(rungs)
    others = [label for label in rungs if _judged(rungs, label)]
    if not wanted or not others:
        return [] if wanted else ["There are no fixed effects that could depend on it."]
    base = _fixed(rungs[first]).loc[list(wanted)]
    moves: list[tuple[float, str, str]] = []
    ratios: list[float] = []
    for label in others:
        other = _fixed(rungs[label]).loc[list(wanted)]
        errors, before = other["se"].to_numpy(dtype=float), base["se"].to_numpy(dtype=float)
        distances = np.abs((other["estimate"] - base["estimate"]).to_numpy(dtype=float)) / np.maximum(errors, before)
        moves += [(distance, term, label) for term, distance in zip(wanted, distances.tolist(), strict=True)]
        ratios += (errors / before).tolist()
    largest, name, label = max(moves)
    what = f"the fixed effect {wanted[0]}" if len(wanted) == 1 else "the fixed effects of interest"
    where = f"{name} by {label}" if len(wanted) > 1 else f"by {label}"
    far = f"moved by at most {largest:.2g} standard errors ({where})" if largest >= 0.005 else "did not move"
    spread = f"the standard errors were between {min(ratios):.2f} and {max(ratios):.2f} times those of the {first} fit"
    return [f"Between these fits {what} {far}, and {spread}.", _conclusion(largest, ratios)]


def _conclusion(largest: float, ratios: Sequence[float]) -> str:
    if largest <= AGREE and max(max(ratios), 1.0 / min(ratios)) <= 1.1:
        return "Conclusions about them do not depend on the way out that is chosen."
    if largest <= DIFFER:
        return "Estimates hold, but intervals and tests of the fixed effects depend on the way out that is chosen: report more than one."
    return "Conclusions about the fixed effects depend on the way out that is chosen: report all of them, and say why one is preferred."


def _fixed(fit: Fit) -> pd.DataFrame:
    rows = fit.estimates
    return rows[rows["part"] == "fixed"].set_index("term")


# ----------------------------------------------------------------------------------------------------------------------- the table


def _base(rungs: Mapping[str, Fit]) -> str:
    """Return the rung that others are compared with: the first, but that of separated data has estimates that mean nothing."""
    return PENALISED if PENALISED in rungs else next(iter(rungs))


def _judged(rungs: Mapping[str, Fit], label: str) -> bool:
    """Return whether a rung is compared with that one: all but itself, and the first of separated data."""
    return label not in (_base(rungs), next(iter(rungs)))


def _long(label: str, fit: Fit, first: Fit, *, judged: bool) -> pd.DataFrame:
    """Return the estimates of a rung with its formula, and verdicts against the rung to compare with."""
    frame = fit.estimates.copy()
    verdicts: dict[object, str] = {}
    if judged:
        pair = side_by_side([first, fit], ["first", label]).table
        verdicts = dict(zip(zip(pair["part"], pair["group"], pair["term"], strict=True), pair["verdict"], strict=True))
    frame["rung"], frame["formula"] = label, fit.model.formula.text
    frame["verdict"] = [verdicts.get(key, "") for key in zip(frame["part"], frame["group"], frame["term"], strict=True)]
    return frame[list(REMEDY_COLUMNS)]
