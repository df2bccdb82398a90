"""Priors as rows: the distributions in brms's spelling, the default tables (`weak`, `brms`), and the user's overlay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.covariance import structure_of
from bayeslmm.errors import PriorError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design, FixedPart, RandomBlock
    from bayeslmm.families.base import Family, Link, Parameter

__all__ = [
    "DISTRIBUTIONS",
    "INTERCEPT",
    "PARTS",
    "Distribution",
    "DistributionKind",
    "PriorRow",
    "bounds",
    "default_rows",
    "log_density",
    "overlay",
    "parse_distribution",
    "prior",
    "priors_table",
]

type Array = np.ndarray

PARTS = ("intercept", "fixed", "sd", "cor", "aux")
INTERCEPT = "(Intercept)"
STYLES = ("weak", "brms")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionKind:
    """A distribution that a prior may have.

    Attributes
    ----------
    name, arguments
        In brms's spelling and order.
    positive
        The arguments that must be above 0.
    pymc, pymc_arguments
        The class in PyMC and the names of its arguments, in the same order.
    half
        PyMC's class for the distribution folded at a location of 0, and its arguments; None where there is none.
    support
        The range of the distribution itself.
    scipy
        `args -> ` the frozen `scipy.stats` distribution; None for `flat`, `constant` and `lkj`.
    bambi
        bambi's name and its arguments in the same order, folded versions included (their location is 0).
    defaults
        The values of arguments that need not be written; empty where all must be.
    joint
        True where one distribution is of all coefficients of a predictor together.
    """

    name: str
    arguments: tuple[str, ...]
    positive: tuple[str, ...] = ()
    pymc: str = ""
    pymc_arguments: tuple[str, ...] = ()
    half: tuple[str, tuple[str, ...]] | None = None
    support: tuple[float, float] = (-np.inf, np.inf)
    scipy: Callable[..., Any] | None = None
    bambi: tuple[tuple[str, tuple[str, ...]], ...] = ()
    defaults: tuple[float, ...] = ()
    joint: bool = False


def _scipy(name: str, convert: Callable[..., Mapping[str, float]]) -> Callable[..., Any]:
    def frozen(*args: float) -> Any:
        import scipy.stats

        return getattr(scipy.stats, name)(**convert(*args))

    return frozen


DISTRIBUTIONS: Mapping[str, DistributionKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            DistributionKind(
                name="normal",
                arguments=("mu", "sigma"),
                positive=("sigma",),
                pymc="Normal",
                pymc_arguments=("mu", "sigma"),
                half=("HalfNormal", ("sigma",)),
                scipy=_scipy("norm", lambda mu, sigma: {"loc": mu, "scale": sigma}),
                bambi=(("Normal", ("mu", "sigma")), ("HalfNormal", ("sigma",))),
            ),
            DistributionKind(
                name="student_t",
                arguments=("nu", "mu", "sigma"),
                positive=("nu", "sigma"),
                pymc="StudentT",
                pymc_arguments=("nu", "mu", "sigma"),
                half=("HalfStudentT", ("nu", "sigma")),
                scipy=_scipy("t", lambda nu, mu, sigma: {"df": nu, "loc": mu, "scale": sigma}),
                bambi=(("StudentT", ("nu", "mu", "sigma")), ("HalfStudentT", ("nu", "sigma"))),
            ),
            DistributionKind(
                name="cauchy",
                arguments=("mu", "sigma"),
                positive=("sigma",),
                pymc="Cauchy",
                pymc_arguments=("alpha", "beta"),
                half=("HalfCauchy", ("beta",)),
                scipy=_scipy("cauchy", lambda mu, sigma: {"loc": mu, "scale": sigma}),
                bambi=(("Cauchy", ("alpha", "beta")), ("HalfCauchy", ("beta",))),
            ),
            DistributionKind(
                name="exponential",
                arguments=("rate",),
                positive=("rate",),
                pymc="Exponential",
                pymc_arguments=("lam",),
                support=(0.0, np.inf),
                scipy=_scipy("expon", lambda rate: {"scale": 1.0 / rate}),
                bambi=(("Exponential", ("lam",)),),
            ),
            DistributionKind(
                name="gamma",
                arguments=("shape", "rate"),
                positive=("shape", "rate"),
                pymc="Gamma",
                pymc_arguments=("alpha", "beta"),
                support=(0.0, np.inf),
                scipy=_scipy("gamma", lambda shape, rate: {"a": shape, "scale": 1.0 / rate}),
                bambi=(("Gamma", ("alpha", "beta")),),
            ),
            DistributionKind(
                name="inv_gamma",
                arguments=("shape", "scale"),
                positive=("shape", "scale"),
                pymc="InverseGamma",
                pymc_arguments=("alpha", "beta"),
                support=(0.0, np.inf),
                scipy=_scipy("invgamma", lambda shape, scale: {"a": shape, "scale": scale}),
                bambi=(("InverseGamma", ("alpha", "beta")),),
            ),
            DistributionKind(
                name="logistic",
                arguments=("mu", "sigma"),
                positive=("sigma",),
                pymc="Logistic",
                pymc_arguments=("mu", "s"),
                scipy=_scipy("logistic", lambda mu, sigma: {"loc": mu, "scale": sigma}),
                bambi=(("Logistic", ("mu", "s")),),
            ),
            DistributionKind(
                name="lognormal",
                arguments=("mu", "sigma"),
                positive=("sigma",),
                pymc="LogNormal",
                pymc_arguments=("mu", "sigma"),
                support=(0.0, np.inf),
                scipy=_scipy("lognorm", lambda mu, sigma: {"s": sigma, "scale": float(np.exp(mu))}),
                bambi=(("LogNormal", ("mu", "sigma")),),
            ),
            DistributionKind(
                name="beta",
                arguments=("alpha", "beta"),
                positive=("alpha", "beta"),
                pymc="Beta",
                pymc_arguments=("alpha", "beta"),
                support=(0.0, 1.0),
                scipy=_scipy("beta", lambda alpha, beta: {"a": alpha, "b": beta}),
                bambi=(("Beta", ("alpha", "beta")),),
            ),
            DistributionKind(
                name="uniform",
                arguments=("lower", "upper"),
                pymc="Uniform",
                pymc_arguments=("lower", "upper"),
                scipy=_scipy("uniform", lambda lower, upper: {"loc": lower, "scale": upper - lower}),
                bambi=(("Uniform", ("lower", "upper")),),
            ),
            DistributionKind(name="flat", arguments=(), pymc="Flat", half=("HalfFlat", ()), bambi=(("Flat", ()), ("HalfFlat", ()))),
            DistributionKind(name="constant", arguments=("value",)),
            DistributionKind(name="lkj", arguments=("eta",), positive=("eta",), pymc="LKJCorr", pymc_arguments=("eta",)),
            DistributionKind(
                name="horseshoe",
                arguments=("df", "scale_global", "df_global", "scale_slab", "df_slab", "par_ratio", "autoscale"),
                positive=("df", "scale_global", "df_global", "scale_slab", "df_slab"),
                defaults=(1.0, 1.0, 1.0, 2.0, 4.0, 0.0, 1.0),
                joint=True,
            ),
            DistributionKind(
                name="R2D2",
                arguments=("mean_R2", "prec_R2", "cons_D2", "autoscale"),
                positive=("mean_R2", "prec_R2", "cons_D2"),
                defaults=(0.5, 2.0, 0.5, 1.0),
                joint=True,
            ),
        )
    }
)
"""Every distribution of a prior, by its name in brms."""

_TEXT = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*\(([^()]*)\)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution with its arguments; `str()` gives brms's spelling, `normal(0, 2.5)`."""

    name: str
    args: tuple[float, ...] = ()

    @property
    def kind(self) -> DistributionKind:
        return DISTRIBUTIONS[self.name]

    @property
    def proper(self) -> bool:
        """Whether the density integrates to one (only `flat` does not)."""
        return self.name != "flat"

    def __str__(self) -> str:
        shown = [format(value, ".15g") for value in self.args]
        if self.kind.joint and len(shown) == len(self.kind.arguments):
            shown = [_named_argument(name, value) for name, value in zip(self.kind.arguments, self.args, strict=True)]
        return f"{self.name}({', '.join(text for text in shown if text)})"


def _named_argument(name: str, value: float) -> str:
    """Return `name=value`; nothing for a ratio that is not given and for the scaling by sigma, which is the default."""
    if name == "autoscale":
        return "" if value else "autoscale=FALSE"
    return f"{name}={value:.15g}" if name != "par_ratio" or value else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRow:
    """One prior: of which parameter (`part`, `group`, `term`), which distribution, and whether default or the user's.

    Empty `group` or `term`: in a user's row, the whole part; in a model's row, that the part has none. `parameter` is the
    distributional parameter (`sigma`) whose predictor the row belongs to, empty for the mean's. `lower`, `upper`: the user's
    own bounds, which cut the distribution beside the parameter's range.
    """

    part: str
    group: str = ""
    term: str = ""
    distribution: Distribution
    source: str = "user"
    parameter: str = ""
    lower: float = -np.inf
    upper: float = np.inf

    @property
    def bounded(self) -> bool:
        """Whether the user gave bounds."""
        return bool(self.lower > -np.inf or self.upper < np.inf)

    def __str__(self) -> str:
        sides = (("lower", self.lower), ("upper", self.upper))
        return ", ".join([str(self.distribution), *(f"{side}={value:.15g}" for side, value in sides if np.isfinite(value))])


def prior(
    distribution: Any,
    *,
    part: str,
    term: str | None = None,
    group: str | None = None,
    lower: float | None = None,
    upper: float | None = None,
) -> PriorRow:
    """Return one prior row, to be laid over the defaults by `priors=`.

    Parameters
    ----------
    distribution
        In brms's spelling, `"student_t(3, 0, 2.5)"`, or a `bambi.Prior`. It is cut to the parameter's range, so that
        `"normal(0, 1)"` on a standard deviation is a half-normal. Known: `normal(mu, sigma)`, `student_t(nu, mu, sigma)`,
        `cauchy(mu, sigma)`, `logistic(mu, sigma)`, `exponential(rate)`, `gamma(shape, rate)`, `inv_gamma(shape, scale)`,
        `lognormal(mu, sigma)`, `beta(alpha, beta)`, `uniform(lower, upper)`, `lkj(eta)`, `flat()`, `constant(value)`; and, of all
        coefficients but the intercept together, brms's `horseshoe(df=1, scale_global=1, df_global=1, scale_slab=2, df_slab=4,
        par_ratio=..., autoscale=TRUE)` and `R2D2(mean_R2=0.5, prec_R2=2, cons_D2=0.5, autoscale=TRUE)`.
    part
        `"intercept"` (of the centred design, as in brms), `"fixed"`, `"sd"`, `"cor"` or `"aux"`.
    term
        Coefficient, effect or parameter; default: all of the part. `part="fixed", term="(Intercept)"` sets the prior of
        the intercept as it is printed, at predictors of zero, in place of the centred one.
    group
        Grouping factor, for `sd` and `cor`; default: all.
    lower, upper
        Bounds of the parameter, on its own scale (default: none but its range); the prior is cut to them and normalised. They
        are brms's `lb` and `ub`.

    Raises
    ------
    PriorError
        If the text is no distribution, an argument is out of range, the part is unknown, or bounds are given where they mean
        nothing: for correlations, a constant, `horseshoe` and `R2D2`.

    Examples
    --------
    >>> prior("student_t(3, 0, 2.5)", part="fixed", term="Days").distribution.args
    (3.0, 0.0, 2.5)
    >>> print(prior("normal(0, 1)", part="fixed", term="Days", lower=0))
    normal(0, 1), lower=0
    """
    if part not in PARTS:
        raise PriorError(f"a prior has no part '{part}'{suggest(str(part), PARTS)}")
    low, high = _bound("lower", lower, -np.inf), _bound("upper", upper, np.inf)
    if isinstance(distribution, str):
        parsed = parse_distribution(distribution)
    else:
        parsed, theirs = _from_bambi(distribution)
        low, high = max(low, theirs[0]), min(high, theirs[1])
    if (part == "cor") != (parsed.name == "lkj"):
        needed = "correlations take lkj(eta)" if part == "cor" else "lkj(eta) is for part='cor'"
        raise PriorError(f"{parsed} cannot be a prior of part '{part}': {needed}")
    if parsed.kind.joint and (part != "fixed" or term):
        raise PriorError(f"{parsed.name}() is a prior of all coefficients together: give it with part='fixed' and without a term")
    return _within(PriorRow(part=part, group=group or "", term=term or "", distribution=parsed), low, high)


def _bound(side: str, value: float | None, default: float) -> float:
    """Return a bound as a number, its default where there is none."""
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if np.isnan(number):
        raise PriorError(f"{side} must be a number, not {value!r}")
    return number


def _within(row: PriorRow, lower: float, upper: float) -> PriorRow:
    """Return a row with bounds; a `flat()` between two of them is uniform."""
    if lower == -np.inf and upper == np.inf:
        return row
    kind = row.distribution.kind
    if kind.name in ("lkj", "constant") or kind.joint:
        raise PriorError(f"{row.distribution} takes no bounds: lower and upper are for the prior of a single number")
    if not lower < upper:
        raise PriorError(f"lower ({lower:g}) must be below upper ({upper:g})")
    flat = kind.name == "flat" and np.isfinite(lower) and np.isfinite(upper)
    distribution = Distribution(name="uniform", args=(lower, upper)) if flat else row.distribution
    return replace(row, distribution=distribution, lower=lower, upper=upper)


def parse_distribution(text: str) -> Distribution:
    """Read a distribution in brms's spelling, as `normal(0, 2.5)`; arguments may be named, `horseshoe(1, par_ratio=0.1)`.

    Raises
    ------
    PriorError
        If the name is unknown, or the number or range of the arguments is wrong.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise PriorError(f"cannot read the prior {text!r}; write it as 'normal(0, 2.5)'")
    name, inside = match.groups()
    if name not in DISTRIBUTIONS:
        raise PriorError(f"unknown prior distribution '{name}'{suggest(name, list(DISTRIBUTIONS))}")
    return _checked(Distribution(name=name, args=_arguments(DISTRIBUTIONS[name], inside, text)))


def _arguments(kind: DistributionKind, inside: str, text: str) -> tuple[float, ...]:
    """Return the arguments in the kind's order: the first by position, others by name, the rest by default."""
    given: dict[str, float] = {}
    positional: list[float] = []
    for piece in inside.split(",") if inside.strip() else []:
        name, equals, value = (part.strip() for part in piece.rpartition("="))
        if not equals:
            if given:
                raise PriorError(f"in the prior {text!r} arguments without a name come first")
            positional.append(_number(value, text))
        elif name not in kind.arguments:
            raise PriorError(f"{kind.name}() has no argument '{name}'{suggest(name, kind.arguments)}")
        elif name in given or name in kind.arguments[: len(positional)]:
            raise PriorError(f"the argument '{name}' stands twice in the prior {text!r}")
        else:
            given[name] = _number(value, text)
    if len(positional) > len(kind.arguments):
        return tuple(positional)
    known = dict(zip(kind.arguments, kind.defaults, strict=False)) | dict(zip(kind.arguments, positional, strict=False)) | given
    return tuple(known[name] for name in kind.arguments if name in known)


_LOGICAL = MappingProxyType({"TRUE": 1.0, "FALSE": 0.0, "True": 1.0, "False": 0.0})


def _number(piece: str, text: str) -> float:
    if piece in _LOGICAL:
        return _LOGICAL[piece]
    try:
        return float(piece)
    except ValueError:
        raise PriorError(f"{piece!r} in the prior {text!r} is not a number") from None


def _checked(distribution: Distribution) -> Distribution:
    kind = distribution.kind
    if len(distribution.args) != len(kind.arguments):
        wanted = f"{kind.name}({', '.join(kind.arguments)})"
        raise PriorError(f"{distribution} has {len(distribution.args)} arguments; it is {wanted}")
    for name, value in zip(kind.arguments, distribution.args, strict=True):
        if not np.isfinite(value):
            raise PriorError(f"{name} of {distribution} must be finite")
        if name in kind.positive and value <= 0:
            raise PriorError(f"{name} of {distribution} must be above 0, not {value:g}")
        if name == "mean_R2" and value >= 1.0:
            raise PriorError(f"mean_R2 of {distribution} must lie between 0 and 1, not {value:g}")
        if name == "par_ratio" and value < 0.0:
            raise PriorError(f"par_ratio of {distribution} must be above 0, not {value:g}")
    if kind.name == "uniform" and distribution.args[0] >= distribution.args[1]:
        raise PriorError(f"lower must be below upper in {distribution}")
    return distribution


def _from_bambi(given: Any) -> tuple[Distribution, tuple[float, float]]:
    """Read a `bambi.Prior` (an object with `name` and `args`): the distribution, and the bounds that a folded or truncated one has."""
    name, args = getattr(given, "name", None), getattr(given, "args", None)
    if not isinstance(name, str) or not isinstance(args, Mapping):
        raise PriorError(f"a prior is a text as 'normal(0, 2.5)' or a bambi.Prior, not {type(given).__name__}")
    limits = (-np.inf, np.inf)
    if name == "TruncatedNormal":
        args = dict(args)
        limits = _bound("lower", args.pop("lower", None), -np.inf), _bound("upper", args.pop("upper", None), np.inf)
        name = "Normal"
    for kind in DISTRIBUTIONS.values():
        for their_name, their_arguments in kind.bambi:
            if name == their_name and set(args) == set(their_arguments):
                values = [_single(name, argument, args[argument]) for argument in their_arguments]
                folded = name.startswith("Half")
                return _checked(Distribution(name=kind.name, args=_with_zero_location(kind, values))), (0.0, np.inf) if folded else limits
    known = ", ".join(f"{their}({', '.join(names)})" for kind in DISTRIBUTIONS.values() for their, names in kind.bambi)
    raise PriorError(f"bambi.Prior({name!r}, {', '.join(args)}) has no counterpart here; there are: {known}")


def _single(name: str, argument: str, value: Any) -> float:
    """Return one argument of a `bambi.Prior` as a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise PriorError(f"{argument} of bambi.Prior({name!r}) must be one number here, not {type(value).__name__}") from None


def _with_zero_location(kind: DistributionKind, values: list[float]) -> tuple[float, ...]:
    """Insert the location 0 that a folded distribution leaves out."""
    if len(values) == len(kind.arguments):
        return tuple(values)
    values.insert(kind.arguments.index("mu"), 0.0)
    return tuple(values)


def bounds(row: PriorRow, family: Family) -> tuple[float, float]:
    """Return the range of the parameter that a row is about, within the user's bounds; it cuts the prior."""
    lower, upper = -np.inf, np.inf
    if row.part == "sd":
        lower = 0.0
    if row.part == "aux":
        lower, upper = next(((one.lower, one.upper) for one in family.parameters if one.name == row.term), (lower, upper))
    return max(lower, row.lower), min(upper, row.upper)


def log_density(distribution: Distribution, x: Array, lower: float = -np.inf, upper: float = np.inf) -> Array:
    """Return the log density at `x`, cut to (lower, upper) and normalised; 0 everywhere inside for `flat()`.

    Parameters
    ----------
    distribution
        Any but `lkj` (a density of matrices) and `constant` (none).
    x
        Points, any shape.
    lower, upper
        The parameter's range.
    """
    x = np.asarray(x, dtype=float)
    inside = (x >= lower) & (x <= upper)
    if distribution.name == "flat":
        return np.where(inside, 0.0, -np.inf)
    frozen_by = distribution.kind.scipy
    if frozen_by is None:
        raise PriorError(f"{distribution} has no density on the line")
    frozen = frozen_by(*distribution.args)
    return np.where(inside, frozen.logpdf(x) - np.log(_mass(frozen, lower, upper)), -np.inf)


def _mass(frozen: Any, lower: float, upper: float) -> float:
    """Return the probability between two bounds, from the tail that they lie in."""
    if lower > float(frozen.median()):
        return float(frozen.sf(lower) - frozen.sf(upper))
    return float(frozen.cdf(upper) - frozen.cdf(lower))


def priors_table(rows: Iterable[PriorRow]) -> pd.DataFrame:
    """Return rows as a frame `part, group, term, prior, source`; bounds stand behind the prior, `normal(0, 1), lower=0`."""
    import pandas as pd

    records = [(row.part, row.group, row.term, str(row), row.source) for row in rows]
    return pd.DataFrame(records, columns=["part", "group", "term", "prior", "source"])


# --- Defaults -----------------------------------------------------------------------------------------------------------------


def default_rows(design: Design, family: Family, link: Link, style: str = "weak") -> tuple[PriorRow, ...]:
    """Return the default priors of every parameter of a model.

    Parameters
    ----------
    design, family, link
        The model's.
    style
        `"weak"`: all proper, on the data's scale. With s the scale of the response on the link's scale (identity: the larger of
        its standard deviation and 1.4826 MAD; otherwise brms's scale, at least 2.5): intercept `student_t(3, median, s)` of the
        centred design; slopes `normal(0, 2.5 s / sd(x))` (identity) or `normal(0, 2.5 / sd(x))`; standard deviations
        `student_t(3, 0, s)`, for a slope `s / sd(x)`; correlations `lkj(2)`; sigma `student_t(3, 0, s)`; other further parameters
        as brms's (nu `gamma(2, 0.1)`, phi and shape `gamma(0.01, 0.01)`, the negative binomial's shape `inv_gamma(0.4, 0.3)`,
        zi and hu `beta(1, 1)`, their predictor's intercept `logistic(0, 1)`).
        Without an intercept nothing is centred and root mean squares stand in place of s and sd(x).
        `"brms"`: those of brms 2.18 to 2.23: `flat()` slopes, `lkj(1)`, `student_t(3, ., max(2.5, MAD))`.

    Raises
    ------
    PriorError
        If the style is unknown.
    """
    if style not in STYLES:
        raise PriorError(f"unknown style of priors {style!r}{suggest(str(style), STYLES)}")
    scales = replace(_scales(design, link, family, weak=style == "weak"), centred=family.of_levels is not None)
    rows = [*_predictor_rows(design.fixed, design.blocks, scales, "")]
    for parameter in family.parameters:
        if parameter.name in design.parameters:
            rows += _predictor_rows(*design.parameters[parameter.name], _parameter_scales(parameter, scales), parameter.name)
        else:
            known = design.known_errors and parameter.name == family.scale
            distribution = _KNOWN_SCALE if known else _aux_default(parameter, scales)
            rows.append(PriorRow(part="aux", term=parameter.name, distribution=distribution, source="default"))
    return tuple(sorted(rows, key=lambda row: PARTS.index(row.part)))


_KNOWN_SCALE = Distribution(name="constant", args=(1.0,))
"""Of sigma where each row's standard error is known: it is in units of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scales:
    """What default priors are made of: location and scales of the response, and which style.

    `location`, `scale`: of the response on the link's scale; `slope`: of a coefficient of a predictor with sd 1;
    `raw`: the same where nothing is centred; `sigma`: of the residual, `log_sigma` of the intercept of its own predictor;
    `deviation`: of random effects' standard deviations; `intercept`: an intercept's prior, if not student_t;
    `centred`: whether predictors are centred for all that there is no intercept, thresholds being in its place.
    """

    location: float
    scale: float
    slope: float
    raw: float
    sigma: float
    deviation: float
    weak: bool
    log_sigma: float = 2.5
    intercept: str = ""
    centred: bool = False


_DATA_SCALED = ("identity", "log", "inverse", "sqrt", "1/mu^2")
"""Links for which brms takes location and scale from the data."""


def _scales(design: Design, link: Link, family: Family, *, weak: bool) -> _Scales:
    response = np.log(design.y) if family.log_scale else design.y
    if weak and link.name == "identity" and family.parameters and not family.needs_trials:
        return _identity_scales(design, response)
    linked = _linked_response(response, link)
    location, scale = 0.0, 2.5
    if link.name in _DATA_SCALED and not family.needs_trials:
        location = _round(float(np.median(linked)), 1) - float(np.mean(design.offset))
        scale = max(2.5, _round(_mad(linked), 1))
    if not weak:
        moved = np.where(design.y == 0, 0.1, design.y)
        on_log = _round(_mad(np.log(moved)), 1) if np.all(moved > 0.0) else 0.0
        return _Scales(
            location=location,
            scale=scale,
            slope=np.inf,
            raw=np.inf,
            sigma=max(2.5, _round(_mad(response), 1)),
            deviation=scale,
            weak=False,
            log_sigma=max(2.5, on_log),
        )
    spread = _spread(response - (design.offset if link.name == "identity" else 0.0))
    raw = max(2.5, float(np.sqrt(np.mean(linked**2)))) if link.name in _DATA_SCALED and not family.needs_trials else 2.5
    return _Scales(
        location=location, scale=scale, slope=2.5, raw=raw, sigma=_significant(_weighted(spread, design)), deviation=scale, weak=True
    )


def _weighted(spread: float, design: Design) -> float:
    """Return the spread of a row of weight one."""
    return spread * float(np.sqrt(np.mean(design.weights))) if design.has_weights else spread


def _identity_scales(design: Design, response: Array) -> _Scales:
    """Return the weak scales where coefficients are on the scale of the response itself."""
    y = response - design.offset
    spread = _spread(y)
    raw = 2.5 * max(spread, float(np.sqrt(np.mean(y**2))))
    return _Scales(
        location=_significant(float(np.median(y)), 4),
        scale=_significant(spread),
        slope=2.5 * spread,
        raw=raw,
        sigma=_significant(_weighted(spread, design)),
        deviation=_significant(spread),
        weak=True,
    )


def _parameter_scales(parameter: Parameter, scales: _Scales) -> _Scales:
    """Scales of the predictor of log sigma (or another parameter): brms's own, or around the response's log scale."""
    location = float(np.log(scales.sigma)) if scales.weak and not parameter.prior else 0.0
    slope = 1.0 if scales.weak else np.inf
    raw = max(2.5, abs(location)) if scales.weak else np.inf
    return replace(
        scales,
        location=_significant(location),
        scale=2.5 if parameter.prior else scales.log_sigma,
        slope=slope,
        raw=raw,
        deviation=2.5 if scales.weak else scales.deviation,
        intercept=parameter.predicted_prior,
        centred=False,
    )


def _linked_response(y: Array, link: Link) -> Array:
    """Return link(y), zeros moved to 0.1 where the link has no value there, as brms does."""
    if link.name not in _DATA_SCALED:
        return np.zeros_like(y)
    moved = np.where(y == 0, 0.1, y) if link.name in ("log", "inverse", "1/mu^2") else y
    with np.errstate(invalid="ignore", divide="ignore"):
        linked = np.asarray(link.link(np.abs(moved) if link.name != "identity" else moved), dtype=float)
    return linked[np.isfinite(linked)]


def _mad(x: Array) -> float:
    return float(1.4826 * np.median(np.abs(x - np.median(x))))


def _spread(y: Array) -> float:
    """Return the larger of standard deviation and 1.4826 MAD; 1 for a constant."""
    return max(float(np.std(y, ddof=1)) if len(y) > 1 else 0.0, _mad(y)) or 1.0


def _round(x: float, digits: int) -> float:
    return float(np.round(x, digits))


def _significant(x: float, digits: int = 3) -> float:
    return float(f"{x:.{digits}g}")


def _sd_of(column: Array, *, centred: bool) -> float:
    """Return sd (or root mean square) of a predictor's column; 1 for a constant one."""
    largest = float(np.max(np.abs(column), initial=0.0))
    size = float(np.std(column, ddof=1)) if centred and len(column) > 1 else float(np.sqrt(np.mean(column**2)))
    return size if size > 1e-12 * largest else 1.0


def _named(parameter: str, term: str) -> str:
    return f"{parameter}_{term}" if parameter else term


def _predictor_rows(fixed: FixedPart, blocks: Sequence[RandomBlock], scales: _Scales, parameter: str) -> list[PriorRow]:
    """Return the rows of one linear predictor: intercept, slopes, standard deviations, correlations."""
    rows = []
    has_intercept = scales.centred or INTERCEPT in fixed.names
    for j, name in enumerate(fixed.names):
        if name == INTERCEPT:
            distribution = _intercept_default(scales)
        elif scales.weak:
            size = (scales.slope if has_intercept else scales.raw) / _sd_of(fixed.X[:, j], centred=has_intercept)
            distribution = Distribution(name="normal", args=(0.0, _significant(size)))
        else:
            distribution = Distribution(name="flat")
        part = "intercept" if name == INTERCEPT else "fixed"
        rows.append(PriorRow(part=part, term=_named(parameter, name), distribution=distribution, source="default", parameter=parameter))
    for block in blocks:
        rows += _block_rows(block, blocks, scales, parameter)
    return rows


def _intercept_default(scales: _Scales) -> Distribution:
    if scales.intercept:
        return parse_distribution(scales.intercept)
    return Distribution(name="student_t", args=(3.0, scales.location, scales.scale))


def _block_rows(block: RandomBlock, blocks: Sequence[RandomBlock], scales: _Scales, parameter: str) -> list[PriorRow]:
    structure = structure_of(block)
    terms = ("sd",) if structure.hom and block.n_effects > 1 else block.effects
    rows = []
    for c, effect in enumerate(terms):
        size = 1.0 if structure.hom or not scales.weak else _effect_size(block.values[:, c])
        distribution = Distribution(
            name="student_t", args=(3.0, 0.0, _significant(scales.deviation / size) if scales.weak else scales.deviation)
        )
        term = _named(parameter, effect)
        rows.append(PriorRow(part="sd", group=block.group, term=term, distribution=distribution, source="default", parameter=parameter))
    if structure.correlated and block.n_effects > 1:
        several = sum(other.group == block.group for other in blocks) > 1
        term = _named(parameter, block.name) if several or parameter else ""
        eta = Distribution(name="lkj", args=(2.0 if scales.weak else 1.0,))
        rows.append(PriorRow(part="cor", group=block.group, term=term, distribution=eta, source="default", parameter=parameter))
    return rows


def _effect_size(values: Array) -> float:
    """Return the sd of an effect's column: 1 for the intercept, and for a 0/1 indicator, whose effect is a difference of levels."""
    if np.all((values == 0) | (values == 1)):
        return 1.0
    return _sd_of(values, centred=True)


def _aux_default(parameter: Parameter, scales: _Scales) -> Distribution:
    """Return the family's own default, or one on the scale of the response."""
    return parse_distribution(parameter.prior) if parameter.prior else Distribution(name="student_t", args=(3.0, 0.0, scales.sigma))


# --- Overlay ------------------------------------------------------------------------------------------------------------------


def overlay(defaults: Sequence[PriorRow], user_rows: Sequence[PriorRow], design: Design, family: Family) -> tuple[PriorRow, ...]:
    """Lay the user's rows over the defaults: the more specific wins, of equally specific ones the later.

    A row without `term` or `group` holds for the whole part, for the predictor of the mean only; parameters that have a
    predictor of their own are named, `sigma_Days`. A `fixed` row with term `(Intercept)` replaces the `intercept` row.

    Raises
    ------
    PriorError
        If a row names nothing in the model, or its distribution lies outside the parameter's range.
    """
    for given in user_rows:
        if not isinstance(given, PriorRow):
            raise PriorError(f"priors is a list of rows made by prior(...), not of {type(given).__name__}")
    rows = _with_raw_intercepts(defaults, user_rows)
    for given in user_rows:
        _check_target(given, rows)
    result = tuple(_overlaid(row, user_rows) for row in rows)
    for row in result:
        if row.source != "default":
            _check_range(row, family)
    _check_joint(result)
    return result


def _with_raw_intercepts(defaults: Sequence[PriorRow], user_rows: Sequence[PriorRow]) -> tuple[PriorRow, ...]:
    """Turn intercept rows into `fixed` ones where the user puts a prior on the raw intercept, before the slopes."""
    raw = {row.term for row in user_rows if row.part == "fixed" and row.term}
    both = [row.term for row in user_rows if row.part == "intercept" and (row.term or INTERCEPT) in raw]
    if both:
        raise PriorError(
            "priors on both the centred intercept (part='intercept') and the raw one (part='fixed', term='(Intercept)'); give one"
        )
    moved = [replace(row, part="fixed") if row.part == "intercept" and row.term in raw else row for row in defaults]
    return tuple(sorted(moved, key=lambda row: PARTS.index(row.part)))


def _matches(given: PriorRow, row: PriorRow) -> bool:
    if given.part != row.part or (given.group and given.group != row.group):
        return False
    if given.term:
        return given.term == row.term
    return not row.parameter and not (row.part == "fixed" and row.term == INTERCEPT)


def _overlaid(row: PriorRow, user_rows: Sequence[PriorRow]) -> PriorRow:
    matching = [given for given in user_rows if _matches(given, row)]
    if not matching:
        return row
    best = max(enumerate(matching), key=lambda pair: (bool(pair[1].term) + bool(pair[1].group), pair[0]))[1]
    return replace(row, distribution=best.distribution, source=best.source, lower=best.lower, upper=best.upper)


def _check_joint(rows: Sequence[PriorRow]) -> None:
    """Refuse a prior of a single coefficient beside one of all coefficients together."""
    own = [row for row in rows if row.part == "fixed" and not row.parameter and row.term != INTERCEPT]
    joint = next((row for row in own if row.distribution.kind.joint), None)
    other = next((row for row in own if joint is not None and row.distribution != joint.distribution), None)
    if joint is not None and other is not None:
        raise PriorError(
            f"{joint.distribution.name}() is a prior of all coefficients together; '{other.term}' cannot have its own, {other.distribution}"
        )


def _check_target(given: PriorRow, rows: Sequence[PriorRow]) -> None:
    """Refuse a row that names nothing in the model, listing what there is."""
    if any(_matches(given, row) for row in rows):
        return
    of_part = [row for row in rows if row.part == given.part]
    if not of_part:
        raise PriorError(
            f"the model has no parameters of part '{given.part}'; it has: {', '.join(dict.fromkeys(row.part for row in rows))}"
        )
    groups = list(dict.fromkeys(row.group for row in of_part if row.group))
    if given.group and given.group not in groups:
        raise PriorError(f"no group '{given.group}' in part '{given.part}' of the model{suggest(given.group, groups)}")
    terms = list(dict.fromkeys(row.term for row in of_part if row.term and (not given.group or row.group == given.group)))
    raise PriorError(f"no term '{given.term}' in part '{given.part}' of the model{suggest(given.term, terms)}")


def _check_range(row: PriorRow, family: Family) -> None:
    """Refuse a prior with no mass in the parameter's range."""
    lower, upper = bounds(row, family)
    name = f"{row.part} {row.term}".strip()
    if row.bounded and row.part == "aux" and family.of_levels is not None:
        raise PriorError(f"thresholds take no bounds, as they bound each other ({name})")
    if not lower < upper:
        raise PriorError(f"{row} leaves nothing of the range of {name}")
    if row.distribution.name == "constant":
        value = row.distribution.args[0]
        if not lower <= value <= upper:
            raise PriorError(f"{row.distribution} lies outside the range of {name} ({lower:g} to {upper:g})")
        return
    frozen_by = row.distribution.kind.scipy
    if frozen_by is None or (np.isinf(lower) and np.isinf(upper)):
        return
    if _mass(frozen_by(*row.distribution.args), lower, upper) < 1e-12:
        raise PriorError(f"{row.distribution} has no mass in the range of {name} ({lower:g} to {upper:g})")
