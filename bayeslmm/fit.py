"""The `Fit` protocol, the one `estimates` schema of both engines, and the records `Check` and `Diagnostics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design
    from bayeslmm.model import Model

__all__ = ["ESTIMATES_COLUMNS", "TIDY_COLUMNS", "Check", "Diagnostics", "Draws", "Fit", "tidied"]

type Array = np.ndarray

ESTIMATES_COLUMNS = ("part", "group", "term", "estimate", "se", "lower", "upper")
"""Columns of `fit.estimates`. Rows: `fixed` (group ""), then per factor `sd` and `cor` (term `Days.(Intercept)`), then `aux` (`sigma`)."""

TIDY_COLUMNS = ("effect", "group", "level", "term", "estimate", "std_error", "conf_low", "conf_high", "statistic")
"""Columns of `fit.tidy()` of both engines, as broom.mixed's; what a row does not have is NaN, or empty text."""


def tidied(design: Design, estimates: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `fit.estimates` in broom.mixed's columns and names, without a statistic.

    Coefficients have effect `fixed`, all others `ran_pars`: `sd__Days`, `cor__(Intercept).Days`, the residual standard deviation
    `sd__Observation` of group `Residual`, further parameters their own name.
    """
    parts = [("", design.blocks), *((f"{name}_", blocks) for name, (_, blocks) in design.parameters.items())]
    names = {("aux", "", "sigma"): ("Residual", "sd__Observation")}
    for prefix, blocks in parts:
        for block in blocks:
            effects = [prefix + effect for effect in block.effects]
            names.update({("sd", block.group, effect): (block.group, f"sd__{effect}") for effect in effects})
            pairs = [(first, second) for j, first in enumerate(effects) for second in effects[j + 1 :]]
            names.update({("cor", block.group, f"{two}.{one}"): (block.group, f"cor__{one}.{two}") for one, two in pairs})
    keys = list(zip(estimates["part"], estimates["group"], estimates["term"], strict=True))
    shown = [names.get(key, key[1:]) for key in keys]
    frame = estimates.rename(columns={"se": "std_error", "lower": "conf_low", "upper": "conf_high"})
    frame = frame.assign(effect=["fixed" if key[0] == "fixed" else "ran_pars" for key in keys], level="", statistic=np.nan)
    return frame.assign(group=[group for group, _ in shown], term=[term for _, term in shown])[list(TIDY_COLUMNS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The parameters of a fit as S draws: the posterior's, or one for a point estimate.

    `b` (S, p); per block of the design, in order: `effects` (S, J, k) and `covariance` (S, k, k) of the random effects;
    `aux`: parameter -> (S,) or, where it has a predictor of its own, (S, n) for the fitted rows; `further`: such a parameter ->
    the draws of its predictor (`b`, `effects`, `covariance` of its own design).
    """

    b: Array
    effects: tuple[Array, ...]
    covariance: tuple[Array, ...]
    aux: Mapping[str, Array]
    further: Mapping[str, Draws] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def n_draws(self) -> int:
        return int(self.b.shape[0])

    def take(self, which: Array) -> Draws:
        """Return the draws at the given positions, with repeats."""
        return Draws(
            b=self.b[which],
            effects=tuple(part[which] for part in self.effects),
            covariance=tuple(part[which] for part in self.covariance),
            aux={name: values[which] for name, values in self.aux.items()},
            further={name: draws.take(which) for name, draws in self.further.items()},
        )


@runtime_checkable
class Fit(Protocol):
    """What every fit offers, whichever engine made it (see the package's contract)."""

    @property
    def model(self) -> Model: ...
    @property
    def method(self) -> str: ...
    @property
    def estimates(self) -> pd.DataFrame: ...
    @property
    def sigma(self) -> float: ...
    @property
    def nobs(self) -> int: ...
    @property
    def ngroups(self) -> dict[str, int]: ...
    def fixef(self) -> pd.Series: ...
    def ranef(self, condsd: bool = False) -> Mapping[str, Any]: ...
    def coef(self) -> dict[str, pd.DataFrame]: ...
    def varcorr(self) -> pd.DataFrame: ...
    def vcov(self) -> pd.DataFrame: ...
    def fitted(self) -> pd.Series: ...
    def residuals(self, kind: str = "response") -> pd.Series: ...
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
    ) -> pd.DataFrame: ...
    def simulate(self, n: int = 1, *, conditional: bool = False, newdata: Any = None, seed: int | None = None) -> pd.DataFrame: ...
    def summary(self) -> Any: ...
    def diagnose(self) -> Diagnostics: ...
    def draws(self) -> Draws: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One diagnostic: what was measured, against which limit, what it means and what to do.

    `severity` is `"error"` where a failed check makes the fit unsound, `"note"` where it only wants to be read.
    """

    code: str
    value: float
    limit: float
    passed: bool
    meaning: str
    remedy: str = ""
    severity: str = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """All checks of one fit, in order; `.ok` where no check of severity `error` failed."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.passed or check.severity != "error" for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def table(self) -> pd.DataFrame:
        """Frame `code, value, limit, passed, meaning, remedy`."""
        import pandas as pd

        columns = ("code", "value", "limit", "passed", "meaning", "remedy")
        return pd.DataFrame([{name: getattr(check, name) for name in columns} for check in self.checks], columns=list(columns))

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __len__(self) -> int:
        return len(self.checks)

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            mark = "ok  " if check.passed else ("FAIL" if check.severity == "error" else "note")
            line = f"{mark}  {check.code:<22} {check.value:>10.4g}  (limit {check.limit:g})"
            lines.append(
                line if check.passed else f"{line}\n      {check.meaning}" + (f"\n      -> {check.remedy}" if check.remedy else "")
            )
        return "\n".join(lines)
