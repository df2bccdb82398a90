"""The `Fit` protocol, the one `estimates` schema of both engines, and the records `Check` and `Diagnostics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.model import Model

__all__ = ["ESTIMATES_COLUMNS", "Check", "Diagnostics", "Draws", "Fit"]

type Array = np.ndarray

ESTIMATES_COLUMNS = ("part", "group", "term", "estimate", "se", "lower", "upper")
"""Columns of `fit.estimates`. Rows: `fixed` (group ""), then per factor `sd` and `cor` (term `Days.(Intercept)`), then `aux` (`sigma`)."""


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
