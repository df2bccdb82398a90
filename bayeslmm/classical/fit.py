"""`ClassicalFit`: the estimates of a mixed model by REML or maximum likelihood, and the tables made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from bayeslmm import prediction
from bayeslmm.classical import ddf as ddf_methods
from bayeslmm.classical import joint, response
from bayeslmm.classical.diagnose import diagnose, singular_terms
from bayeslmm.classical.summary import summarise
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError, suggest
from bayeslmm.families import LINKS
from bayeslmm.fit import ESTIMATES_COLUMNS, TIDY_COLUMNS, Diagnostics, Draws, tidied
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.classical.penalty import Penalty
    from bayeslmm.classical.summary import ClassicalSummary
    from bayeslmm.design import NewRows, RandomBlock
    from bayeslmm.model import Model

__all__ = ["ClassicalFit", "Further", "SearchLog"]

type Array = np.ndarray

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLog:
    """How the optimum was found.

    `gradient` (n_theta,) and `hessian` (n_theta, n_theta) of the criterion by theta; `projected`: largest gradient of a free
    parameter, in scaled units; `least_curvature`: least over greatest eigenvalue of the scaled Hessian of the free parameters;
    `undetermined`: the covariance parameters, as `Days | Subject`, of which the data determine only a combination (`flat`);
    `trace`: accepted steps, in the search's own coordinates, and the criterion there; `verdict`: `converged`,
    `converged at the boundary`, `flat` or `failed`.
    """

    optimiser: str
    evaluations: int
    starts: int
    gradient: Array
    hessian: Array
    projected: float
    least_curvature: float
    flat: bool
    undetermined: tuple[str, ...]
    converged: bool
    verdict: str
    trace: tuple[tuple[Array, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Further:
    """Estimates of a further parameter of the response's distribution: a constant, or coefficients of a predictor of its own.

    `link`: the name of its link, on whose scale `beta` (m,) and their covariance `vcov` (m, m) are; `names` (m,) of the
    coefficients, empty for a constant (m = 1). Per random term of its predictor `effects` (J, k) and `covariances` (k, k); per
    grouping factor `condvar` (J, k, k); `theta`: their covariance parameters.
    """

    link: str
    beta: Array
    vcov: Array
    names: tuple[str, ...] = ()
    theta: Array = field(default_factory=lambda: np.zeros(0))
    effects: tuple[Array, ...] = ()
    covariances: tuple[Array, ...] = ()
    condvar: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def standard_errors(self) -> Array:
        """Standard errors of `beta` (m,)."""
        errors: Array = np.sqrt(np.diagonal(self.vcov))
        return errors

    @property
    def n_parameters(self) -> int:
        return len(self.beta) + len(self.theta)

    def natural(self, eta: Array | None = None) -> Array:
        """Return the parameter itself at some values of its predictor; of a constant, the constant."""
        with np.errstate(over="ignore"):
            return np.asarray(LINKS[self.link].inverse(self.beta if eta is None else eta))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicalFit:
    """A mixed model fitted by REML or maximum likelihood; made by `lmer` and `glmer`, changed by nothing.

    Attributes
    ----------
    model
        The `Model` that was fitted.
    method
        `"REML"` or `"ML"` of a linear model; `"Laplace"`, `"AGQ(k)"` or `"PIRLS"` of a generalised one; `"MAP"`, `"MAP (ML)"`,
        `"MAP (Laplace)"` where a prior keeps theta off the boundary (see `remedy`).
    theta
        lme4's covariance parameters (n_theta,): the lower triangles of the relative Cholesky factors, term by term.
    criterion
        REML criterion, or deviance -2 log L.
    sigma
        Residual standard deviation; 1 for a family without one. Where it has a predictor: at that predictor's intercept (the
        geometric mean of the rows' where there is none), the unit of all that is relative.
    beta
        Fixed effects (p,), in the order of `model.design.fixed_names`.
    unscaled_vcov
        Their covariance over sigma^2 (p, p).
    effects
        Conditional modes per block of the design: (J, k) each.
    unscaled_condvar
        Conditional variances over sigma^2 per grouping factor: (J, k, k), the factor's terms together.
    ld_l2, ld_rx2, pwrss
        log|L|^2, log|R_X|^2 and the penalised residual sum of squares, as lme4's `devcomp`.
    search
        The log of the optimiser; None for a model without random effects.
    further
        Estimates of the distribution's further parameters but the residual standard deviation: name -> `Further`.
    information
        Of a generalised model: what each row says of its linear predictor at the estimate (n,), minus the second derivative of its
        log-likelihood. None for a linear model.
    penalty
        The prior of the coefficients under which the estimate is a mode; None for the likelihood alone. The method names it, as
        `"Laplace, penalty jeffreys"`.
    """

    model: Model
    method: str
    theta: Array
    criterion: float
    sigma: float
    beta: Array
    unscaled_vcov: Array
    effects: tuple[Array, ...]
    unscaled_condvar: Mapping[str, Array]
    ld_l2: float
    ld_rx2: float
    pwrss: float
    search: SearchLog | None
    further: Mapping[str, Further] = field(default_factory=lambda: MappingProxyType({}))
    information: Array | None = None
    penalty: Penalty | None = None

    # ------------------------------------------------------------------------------------------------------------------ numbers

    @property
    def reml(self) -> bool:
        """Whether the criterion is the restricted likelihood."""
        return self.method in ("REML", "MAP")

    @property
    def avoids_boundary(self) -> bool:
        """Whether theta is the mode under the boundary-avoiding prior of `remedy`, and so does not maximise the likelihood."""
        return self.method.startswith("MAP")

    @property
    def approximation(self) -> str:
        """How the likelihood is computed, whatever priors are in the fit: `"Laplace"`, `"AGQ(k)"`, `"PIRLS"`, `"ML"`, `"REML"`."""
        name = self.method.partition(", penalty ")[0]
        if name == "MAP":
            return "REML"
        return name[len("MAP (") : -1] if name.startswith("MAP (") else name

    @property
    def generalised(self) -> bool:
        """Whether the model is a generalised one: its coefficients have z statistics, its expected values a link."""
        return self.information is not None

    @property
    def has_residual(self) -> bool:
        """Whether `sigma` is an estimate: one residual standard deviation for all rows."""
        return self.model.family.scale is not None and self.model.family.scale not in self.further

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.model.design.n

    @property
    def ngroups(self) -> dict[str, int]:
        """Grouping factor -> number of levels."""
        return self.model.design.ngroups

    @property
    def loglik(self) -> float:
        """Log-likelihood, or restricted log-likelihood: minus half the criterion."""
        return -0.5 * self.criterion

    @property
    def n_parameters(self) -> int:
        """Fixed effects, covariance parameters, the residual variance and further parameters."""
        return len(self.beta) + len(self.theta) + self.has_residual + sum(part.n_parameters for part in self.further.values())

    @property
    def aic(self) -> float:
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        return self.criterion + float(np.log(self.nobs)) * self.n_parameters

    @property
    def df_residual(self) -> int:
        """Rows less parameters, as lme4's `df.residual`; for a model without random effects, rows less coefficients."""
        return self.nobs - (self.n_parameters if self.model.design.blocks else len(self.beta))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns of the fixed effects left out because they are combinations of others."""
        return self.model.design.fixed.dropped

    @property
    def convergence(self) -> str:
        """`"converged"`, `"converged at the boundary"`, `"flat"` or `"failed"`."""
        return "converged" if self.search is None else self.search.verdict

    @property
    def converged(self) -> bool:
        """Whether the search arrived at an optimum, in the interior or on the boundary."""
        return self.search is None or self.search.converged

    @property
    def is_singular(self) -> bool:
        """Whether some variance is zero or some correlation one, within lme4's tolerance of 1e-4."""
        return bool(singular_terms(self))

    @property
    def theta_by_block(self) -> tuple[Array, ...]:
        """Theta cut into the parts that belong to the design's blocks."""
        sizes = [structure_of(block).n_theta(block.n_effects) for block in self.model.design.blocks]
        return tuple(np.split(self.theta, np.cumsum(sizes)[:-1])) if sizes else ()

    @property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrices of the random effects, (k, k) per block of the design."""
        result = []
        for block, theta in zip(self.model.design.blocks, self.theta_by_block, strict=True):
            L = self.sigma * structure_of(block).factor(theta, block.n_effects)
            result.append(L @ L.T)
        return tuple(result)

    @property
    def condvar(self) -> dict[str, Array]:
        """Conditional variances of the random effects, given theta and beta: grouping factor -> (J, k, k)."""
        return {group: self.sigma**2 * variance for group, variance in self.unscaled_condvar.items()}

    # ------------------------------------------------------------------------------------------------------------------- tables

    def fixef(self) -> pd.Series:
        """Return the fixed effects by name."""
        return pd.Series(self.beta, index=list(self.model.design.fixed_names), name="estimate", dtype=float)

    def vcov(self) -> pd.DataFrame:
        """Return the covariance matrix of the fixed effects."""
        names = list(self.model.design.fixed_names)
        return pd.DataFrame(self.sigma**2 * self.unscaled_vcov, index=names, columns=names)

    @property
    def standard_errors(self) -> Array:
        """Standard errors of the fixed effects (p,)."""
        errors: Array = self.sigma * np.sqrt(np.diagonal(self.unscaled_vcov))
        return errors

    def ranef(self, condsd: bool = False) -> dict[str, Any]:
        """Return the conditional modes of the random effects.

        Parameters
        ----------
        condsd
            Return pairs `(modes, conditional standard deviations)` (given theta and beta) in place of the modes.

        Returns
        -------
        dict
            Grouping factor -> frame (levels x effects), all terms of the factor side by side.
        """
        modes = {group: _merged(blocks, values) for group, blocks, values in self._by_group()}
        if not condsd:
            return modes
        sds = {group: np.sqrt(np.diagonal(variance, axis1=1, axis2=2)) for group, variance in self.condvar.items()}
        return {group: (frame, pd.DataFrame(sds[group], index=frame.index, columns=frame.columns)) for group, frame in modes.items()}

    def coef(self) -> dict[str, pd.DataFrame]:
        """Return fixed plus random effects by level: grouping factor -> frame; effects without a fixed part come first."""
        modes = self.ranef()
        fixed = dict(zip(self.model.design.fixed_names, self.beta, strict=True))
        missing = dict.fromkeys(name for frame in modes.values() for name in frame.columns if name not in fixed)
        start = {**dict.fromkeys(missing, 0.0), **fixed}
        tables = {}
        for group, frame in modes.items():
            table = pd.DataFrame({name: np.full(len(frame), value) for name, value in start.items()}, index=frame.index)
            for position, name in enumerate(frame.columns):
                table[name] = table[name] + frame.iloc[:, position]
            tables[group] = table
        return tables

    def _by_group(self) -> list[tuple[str, list[RandomBlock], list[Array]]]:
        blocks = self.model.design.blocks
        return [
            (
                group,
                [block for block in blocks if block.group == group],
                [values for block, values in zip(blocks, self.effects, strict=True) if block.group == group],
            )
            for group in self.ngroups
        ]

    def varcorr(self) -> pd.DataFrame:
        """Return variances and covariances with standard deviations and correlations, rows as lme4's `as.data.frame(VarCorr(fit))`.

        Columns `group, term1, term2, vcov, sdcor`; `group` is lme4's unique name (`Subject`, `Subject.1`), `Residual` comes last.
        """
        return pd.DataFrame(self._variance_rows(), columns=["group", "term1", "term2", "vcov", "sdcor"])

    def _variance_rows(self) -> list[tuple[str, str | None, str | None, float, float]]:
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for block, covariance in zip(self.model.design.blocks, self.covariances, strict=True):
            sd = np.sqrt(np.diagonal(covariance))
            rows += [(block.name, effect, None, float(sd[i] ** 2), float(sd[i])) for i, effect in enumerate(block.effects)]
            if structure_of(block).correlated:
                rows += [
                    (block.name, block.effects[j], block.effects[i], float(covariance[i, j]), _ratio(covariance[i, j], sd[i] * sd[j]))
                    for j in range(len(sd))
                    for i in range(j + 1, len(sd))
                ]
        if self.has_residual:
            rows.append(("Residual", None, None, self.sigma**2, self.sigma))
        return rows

    @property
    def estimates(self) -> pd.DataFrame:
        """All estimates in one long frame: `part, group, term, estimate, se, lower, upper` (Wald 95 %; NaN for variance parts)."""
        rows = _fixed_rows(self.model.design.fixed_names, self.beta, self.standard_errors)
        for name, part in self.further.items():
            rows += _fixed_rows([f"{name}_{term}" for term in part.names], part.beta, part.standard_errors)
        rows += _covariance_rows(self.model.design.blocks, self.covariances, "")
        for name, part in self.further.items():
            if part.names:
                rows += _covariance_rows(self.model.design.parameters[name][1], part.covariances, f"{name}_")
        if self.has_residual:
            rows.append(("aux", "", "sigma", self.sigma, _NAN, _NAN, _NAN))
        rows += [_constant_row(name, part) for name, part in self.further.items() if not part.names]
        return pd.DataFrame(rows, columns=list(ESTIMATES_COLUMNS))

    def coefficients(self, ddf: str = "satterthwaite") -> pd.DataFrame:
        """Return the table of fixed effects: `estimate, se, df, statistic, p_value`.

        Parameters
        ----------
        ddf
            Denominator degrees of freedom: `"satterthwaite"` (as lmerTest), `"kenward-roger"` (as pbkrtest: `se` is the adjusted
            one; an ML fit is fitted again by REML, with a warning) or `"none"` (t values without p values, as lme4). Those of a
            generalised model are infinite: z values, with p values of the normal distribution.

        Raises
        ------
        FitError
            For an unknown name; and where too many random effects hang together for degrees of freedom.

        Examples
        --------
        >>> import bayeslmm as bl
        >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
        >>> fit.coefficients().round(2).loc["Days"].tolist()
        [10.47, 1.55, 17.0, 6.77, 0.0]
        """
        if self.generalised:
            return ddf_methods.wald_table(self, ddf)
        if ddf != "none":
            return ddf_methods.coefficient_table(self, ddf)
        se = self.standard_errors
        columns = {"estimate": self.beta, "se": se, "df": np.nan, "statistic": self.beta / se, "p_value": np.nan}
        return pd.DataFrame(columns, index=list(self.model.design.fixed_names), dtype=float)

    # --------------------------------------------------------------------------------------------------------------------- rows

    def predictor(self, parameter: str = "") -> Array:
        """Return the linear predictor of the fitted rows (n,), of the mean or of a further parameter; of a constant that alone (1,)."""
        design = self.model.design
        if not parameter:
            return np.asarray(_linear(design.X, self.beta, design.blocks, self.effects) + design.offset)
        part = self.further[parameter]
        if not part.names:
            return part.beta
        fixed, blocks = design.parameters[parameter]
        return _linear(fixed.X, part.beta, blocks, part.effects)

    def _mean(self) -> Array:
        return response.expected(self) if self.generalised else self.predictor()

    def fitted(self) -> pd.Series:
        """Return the fitted values on the kept rows' index: fixed and random effects and offset; of a generalised model the expected
        response, of rows with trials the probability.
        """
        return pd.Series(self._mean(), index=self.model.design.index, name="fitted")

    def residuals(self, kind: str = "response") -> pd.Series:
        """Return residuals on the kept rows' index.

        Parameters
        ----------
        kind
            `response` and `working`: y minus fitted; `pearson` and `deviance`: times the root of the weight; `scaled`: that
            over sigma; `normalized`: that without the correlation of `ar()`, each less its expectation given the earlier ones of its
            series, over its standard deviation. Where sigma has a predictor, all but the first two are over the row's own standard
            deviation. Of generalised models see `bayeslmm.classical.response`. `quantile`: by simulation, the same at each call (see
            `bayeslmm.prediction.quantile_residuals`).

        Raises
        ------
        FitError
            For an unknown kind.
        """
        design = self.model.design
        unit = self.residual_sd if "sigma" in self.further else 1.0 / np.sqrt(design.weights)
        scales = {"response": 1.0, "working": 1.0, "pearson": 1.0 / unit, "deviance": 1.0 / unit}
        scales |= dict.fromkeys(("scaled", "normalized"), 1.0 / self.residual_sd)
        if kind == "quantile":
            return prediction.quantile_residuals(self)
        if self.generalised and kind in response.KINDS:
            return pd.Series(response.residuals(self, kind), index=design.index, name="residual")
        if kind not in scales:
            raise FitError(f"unknown kind of residuals {kind!r}{suggest(str(kind), [*scales, 'quantile'])}")
        values = (design.y - self._mean()) * scales[kind]
        if kind == "normalized" and design.series is not None:
            structure = residual_of(design.series)
            values = structure.whiten(float(self.further[structure.name].natural()[0]), design.series, values)
        return pd.Series(values, index=design.index, name="residual")

    @property
    def residual_sd(self) -> Array:
        """Residual standard deviation of each row (n,): sigma, or what its predictor says, over the root of the weight."""
        part = self.further.get("sigma")
        sd = self.sigma if part is None else part.natural(self.predictor("sigma"))
        values: Array = sd / np.sqrt(self.model.design.weights)
        return values

    def draws(self) -> Draws:
        """Return the estimate as a single draw, for predictions and simulations."""
        aux = {"sigma": np.array([self.sigma])} if self.has_residual else {}
        for name, part in self.further.items():
            aux[name] = part.natural(self.predictor(name)[None] if part.names else part.beta)
        return Draws(
            b=self.beta[None, :],
            effects=tuple(effects[None] for effects in self.effects),
            covariance=tuple(covariance[None] for covariance in self.covariances),
            aux=aux,
            further={name: _one_draw(part) for name, part in self.further.items() if part.names},
        )

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
        """Predict rows of the data, or of new data; see `bayeslmm.prediction.predict`."""
        return prediction.predict(self, newdata, target=target, new_levels=new_levels, scale=scale, interval=interval, prob=prob, seed=seed)

    def prediction_variance(
        self, rows: NewRows, target: str, *, new_levels: str = "raise", observation: bool = False, df: bool = False
    ) -> tuple[Array, Array]:
        """Return the variance (n,) of predictions' errors and its degrees of freedom; see `bayeslmm.classical.joint`."""
        return joint.prediction_variance(self, rows, target, new_levels=new_levels, observation=observation, df=df)

    def simulate(self, n: int = 1, *, conditional: bool = False, newdata: Any = None, seed: int | None = None) -> pd.DataFrame:
        """Simulate new responses; see `bayeslmm.prediction.simulate`."""
        return prediction.simulate(self, n, conditional=conditional, newdata=newdata, seed=seed)

    # ------------------------------------------------------------------------------------------------------------------ reports

    def summary(self) -> ClassicalSummary:
        """Return the summary: `str()` is lme4's print-out."""
        return summarise(self)

    def diagnose(self) -> Diagnostics:
        """Return all checks of the fit: convergence, curvature, singularity, rank, numbers of levels, and the model's."""
        return diagnose(self)

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Return estimates as broom.mixed has them, a row each.

        Parameters
        ----------
        effects
            Any of `fixed`, `ran_pars` (standard deviations and correlations), `ran_vals` (conditional modes), `ran_coefs`.

        Returns
        -------
        DataFrame
            Columns `effect, group, level, term, estimate, std_error, conf_low, conf_high, statistic`, as for a posterior, and of
            coefficients of `glmer` their `p_value`; limits are Wald's, of 95 %. The residual standard deviation is
            `sd__Observation` of group `Residual`.

        Raises
        ------
        FitError
            For an unknown kind of effects.
        """
        wanted = (effects,) if isinstance(effects, str) else tuple(effects)
        for name in wanted:
            if name not in _TIDY:
                raise FitError(f"unknown effects {name!r}{suggest(str(name), list(_TIDY))}")
        frames = [table for name in wanted if len(table := _TIDY[name](self))]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(TIDY_COLUMNS))

    def glance(self) -> pd.DataFrame:
        """Return one row: `nobs, sigma, loglik, aic, bic`, `reml_criterion` or `deviance`, `df_residual`."""
        name = "reml_criterion" if self.reml else "deviance"
        row = {"nobs": self.nobs, "sigma": self.sigma, "loglik": self.loglik, "aic": self.aic, "bic": self.bic, name: self.criterion}
        return pd.DataFrame([{**row, "df_residual": self.df_residual}])

    def augment(self) -> pd.DataFrame:
        """Return the used rows of the data with `.fitted`, `.resid` and `.fixed` (fixed effects and offset alone)."""
        design = self.model.design
        frame = self.model.frame.loc[design.kept].copy()
        frame[".fitted"] = self._mean()
        frame[".resid"] = self.residuals().to_numpy()
        frame[".fixed"] = design.X @ self.beta + design.offset
        return frame

    def save(self, path: Any) -> None:
        """Write the fit to one file, which `bayeslmm.load` reads: JSON and arrays, with the data; a file that is there is replaced.

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
        return f"<ClassicalFit {self.model.formula.text}; {self.method} {self.criterion:.7g}; {self.convergence}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


type _EstimatesRow = tuple[str, str, str, float, float, float, float]

_NAN = float("nan")


def _fixed_rows(names: Sequence[str], beta: Array, se: Array) -> list[_EstimatesRow]:
    rows = zip(names, beta.tolist(), se.tolist(), strict=False)
    return [("fixed", "", name, value, error, value - _Z95 * error, value + _Z95 * error) for name, value, error in rows]


def _covariance_rows(blocks: Sequence[RandomBlock], covariances: Sequence[Array], prefix: str) -> list[_EstimatesRow]:
    """Return standard deviations and correlations of random terms, effects named with a prefix."""
    rows: list[_EstimatesRow] = []
    for block, covariance in zip(blocks, covariances, strict=True):
        sd = np.sqrt(np.diagonal(covariance))
        names = [prefix + effect for effect in block.effects]
        rows += [("sd", block.group, name, float(sd[i]), _NAN, _NAN, _NAN) for i, name in enumerate(names)]
        if structure_of(block).correlated:
            rows += [
                ("cor", block.group, f"{names[i]}.{names[j]}", _ratio(covariance[i, j], sd[i] * sd[j]), _NAN, _NAN, _NAN)
                for j in range(len(sd))
                for i in range(j + 1, len(sd))
            ]
    return rows


def _constant_row(name: str, part: Further) -> _EstimatesRow:
    """Return a constant on its own scale: the standard error by the delta method, the limits carried over from its link's scale."""
    eta, error = part.beta, part.standard_errors
    value, lower, upper = (float(part.natural(eta + z * error)[0]) for z in (0.0, -_Z95, _Z95))
    slope = float(LINKS[part.link].mu_eta(eta)[0])
    return ("aux", "", name, value, abs(slope) * float(error[0]), min(lower, upper), max(lower, upper))


def _linear(X: Array, beta: Array, blocks: Sequence[RandomBlock], effects: Sequence[Array]) -> Array:
    eta: Array = X @ beta
    for block, own in zip(blocks, effects, strict=True):
        eta = eta + np.einsum("nk,nk->n", block.values, own[block.index])
    return eta


def _one_draw(part: Further) -> Draws:
    return Draws(
        b=part.beta[None, :],
        effects=tuple(effects[None] for effects in part.effects),
        covariance=tuple(covariance[None] for covariance in part.covariances),
        aux={},
    )


def _merged(blocks: Sequence[RandomBlock], values: Sequence[Array]) -> pd.DataFrame:
    names = [effect for block in blocks for effect in block.effects]
    return pd.DataFrame(np.column_stack(values), index=pd.Index(blocks[0].levels, name=blocks[0].group), columns=names)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0.0 else float("nan")


# --------------------------------------------------------------------------------------------------------------------- broom.mixed


def _tidy_fixed(fit: ClassicalFit) -> pd.DataFrame:
    rows = _tidy_estimates(fit, "fixed")
    rows = rows.assign(statistic=rows["estimate"] / rows["std_error"])
    return rows.assign(p_value=2.0 * ndtr(-rows["statistic"].abs())) if fit.generalised else rows


def _tidy_parameters(fit: ClassicalFit) -> pd.DataFrame:
    return _tidy_estimates(fit, "ran_pars")


def _tidy_estimates(fit: ClassicalFit, effect: str) -> pd.DataFrame:
    rows = tidied(fit.model.design, fit.estimates)
    return rows[rows["effect"] == effect]


def _tidy_modes(fit: ClassicalFit) -> pd.DataFrame:
    rows = []
    for group, (modes, sds) in fit.ranef(condsd=True).items():
        for column, name in enumerate(modes.columns):
            pairs = zip(modes.index, modes.iloc[:, column], sds.iloc[:, column], strict=True)
            rows += [("ran_vals", group, str(level), str(name), m, sd, m - _Z95 * sd, m + _Z95 * sd, np.nan) for level, m, sd in pairs]
    return pd.DataFrame(rows, columns=list(TIDY_COLUMNS))


def _tidy_coefficients(fit: ClassicalFit) -> pd.DataFrame:
    rows = [
        ("ran_coefs", group, str(level), str(name), value, np.nan, np.nan, np.nan, np.nan)
        for group, table in fit.coef().items()
        for name in table.columns
        for level, value in table[name].items()
    ]
    return pd.DataFrame(rows, columns=list(TIDY_COLUMNS))


_TIDY: Mapping[str, Callable[[ClassicalFit], pd.DataFrame]] = MappingProxyType(
    {"fixed": _tidy_fixed, "ran_pars": _tidy_parameters, "ran_vals": _tidy_modes, "ran_coefs": _tidy_coefficients}
)
