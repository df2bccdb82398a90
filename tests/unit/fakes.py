"""Small stand-ins for fits: Henderson's equations at given variances, and draws scattered around their solution; no engine is run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm import prediction
from bayeslmm.fit import Check, Diagnostics, Draws
from bayeslmm.model import Model


class FakePrintout:
    """What `summary()` returns: something that prints."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FakeFit:
    """A fit at given standard deviations: `sd` of every random effect, `sigma` of the residual (Gaussian, identity link)."""

    model: Model
    method: str = "REML"
    sd: float = 20.0
    sigma: float = 25.0
    sound: bool = True

    @cached_property
    def _solution(self) -> tuple[np.ndarray, np.ndarray]:
        design = self.model.design
        X, Z = design.X, design.Z.toarray()
        p = X.shape[1]
        W = np.hstack([X, Z])
        penalty = np.diag([0.0] * p + [(self.sigma / self.sd) ** 2] * Z.shape[1])
        inverse = np.linalg.inv(W.T @ W + penalty)
        return inverse @ W.T @ design.y, self.sigma**2 * inverse

    def _effects(self, vector: np.ndarray) -> list[np.ndarray]:
        start, out = self.model.design.X.shape[1], []
        for block in self.model.design.blocks:
            size = block.n_levels * block.n_effects
            out.append(vector[start : start + size].reshape(block.n_levels, block.n_effects))
            start += size
        return out

    def draws(self) -> Draws:
        solution = self._solution[0]
        p = self.model.design.X.shape[1]
        covariance = tuple(np.eye(block.n_effects)[None] * self.sd**2 for block in self.model.design.blocks)
        return Draws(
            b=solution[None, :p],
            effects=tuple(part[None] for part in self._effects(solution)),
            covariance=covariance,
            aux={"sigma": np.array([self.sigma])},
        )

    @property
    def estimates(self) -> pd.DataFrame:
        solution, covariance = self._solution
        design = self.model.design
        rows: list[tuple[Any, ...]] = []
        for j, name in enumerate(design.fixed_names):
            se = float(np.sqrt(covariance[j, j]))
            rows.append(("fixed", "", name, solution[j], se, solution[j] - 1.96 * se, solution[j] + 1.96 * se))
        for block in design.blocks:
            rows += [("sd", block.group, effect, self.sd, np.nan, np.nan, np.nan) for effect in block.effects]
            if block.n_effects == 2:
                rows.append(("cor", block.group, f"{block.effects[1]}.{block.effects[0]}", 0.0, np.nan, np.nan, np.nan))
        rows.append(("aux", "", "sigma", self.sigma, np.nan, np.nan, np.nan))
        return pd.DataFrame(rows, columns=["part", "group", "term", "estimate", "se", "lower", "upper"])

    @property
    def nobs(self) -> int:
        return len(self.model.design.y)

    @property
    def ngroups(self) -> dict[str, int]:
        return {block.group: block.n_levels for block in self.model.design.blocks}

    def fixef(self) -> pd.Series:
        return pd.Series(self._solution[0][: self.model.design.X.shape[1]], index=list(self.model.design.fixed_names))

    def ranef(self, condsd: bool = False) -> dict[str, Any]:
        solution, covariance = self._solution
        values = self._effects(solution)
        sds = self._effects(np.sqrt(np.diag(covariance)))
        out: dict[str, Any] = {}
        for block, value, sd in zip(self.model.design.blocks, values, sds, strict=True):
            pair = tuple(pd.DataFrame(part, index=list(block.levels), columns=list(block.effects)) for part in (value, sd))
            out[block.group] = pair if condsd else pair[0]
        return out

    def coef(self) -> dict[str, pd.DataFrame]:
        raise NotImplementedError

    def varcorr(self) -> pd.DataFrame:
        raise NotImplementedError

    def vcov(self) -> pd.DataFrame:
        raise NotImplementedError

    def fitted(self) -> pd.Series:
        return self.predict()["estimate"]

    def residuals(self, kind: str = "response") -> pd.Series:
        return pd.Series(self.model.design.y, index=self.model.design.index) - self.fitted()

    def predict(self, newdata: Any = None, **options: Any) -> pd.DataFrame:
        return prediction.predict(self, newdata, **options)

    def simulate(self, n: int = 1, **options: Any) -> pd.DataFrame:
        return prediction.simulate(self, n, **options)

    def summary(self) -> FakePrintout:
        return FakePrintout(f"A print-out of {self.model.formula}\nsigma {self.sigma}")

    def diagnose(self) -> Diagnostics:
        check = Check(
            code="gradient",
            value=1e-8 if self.sound else 1.0,
            limit=0.002,
            passed=self.sound,
            meaning="the gradient at the optimum",
            remedy="rescale the predictors",
        )
        return Diagnostics(checks=(check,))


@dataclass(frozen=True)
class FakePosterior(FakeFit):
    """The same with draws: chains x draws of a normal around the solution."""

    method: str = "NUTS"
    n_chains: int = 2
    n_draws: int = 100

    def draws(self) -> Draws:
        rng = np.random.default_rng(1)
        solution, covariance = self._solution
        total = self.n_chains * self.n_draws
        sample = rng.multivariate_normal(solution, covariance, size=total, method="cholesky")
        p = self.model.design.X.shape[1]
        effects = [np.stack([self._effects(row)[i] for row in sample]) for i in range(len(self.model.design.blocks))]
        sd = self.sd * np.exp(0.1 * rng.normal(size=total))
        return Draws(
            b=sample[:, :p],
            effects=tuple(effects),
            covariance=tuple(sd[:, None, None] ** 2 * np.eye(block.n_effects) for block in self.model.design.blocks),
            aux={"sigma": self.sigma * np.exp(0.05 * rng.normal(size=total))},
        )

    @property
    def estimates(self) -> pd.DataFrame:
        table = super().estimates
        scale = table["estimate"].abs().clip(lower=1.0) * 0.1
        table["se"] = table["se"].fillna(scale)
        table["lower"] = table["lower"].fillna(table["estimate"] - 2 * table["se"])
        table["upper"] = table["upper"].fillna(table["estimate"] + 2 * table["se"])
        return table

    @property
    def tree(self) -> Any:
        import xarray as xr

        draws = self.draws()
        shape = (self.n_chains, self.n_draws)
        variables: dict[str, Any] = {
            "b": (("chain", "draw", "fixed"), draws.b.reshape(*shape, -1)),
            "sigma": (("chain", "draw"), draws.aux["sigma"].reshape(shape)),
        }
        coords: dict[str, Any] = {"fixed": list(self.model.design.fixed_names)}
        for block, covariance, effects in zip(self.model.design.blocks, draws.covariance, draws.effects, strict=True):
            effect = f"{block.group}_effect"
            sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
            variables[f"sd_{block.group}"] = (("chain", "draw", effect), sd.reshape(*shape, -1))
            variables[f"r_{block.group}"] = (("chain", "draw", block.group, effect), effects.reshape(*shape, *effects.shape[1:]))
            coords |= {effect: list(block.effects), block.group: list(block.levels)}
            if block.n_effects > 1:
                cor = np.random.default_rng(2).uniform(-0.9, 0.9, size=(*shape, 1, 1)) * (1 - np.eye(block.n_effects)) + np.eye(
                    block.n_effects
                )
                variables[f"cor_{block.group}"] = (("chain", "draw", effect, f"{effect}2"), cor)
        return xr.DataTree.from_dict({"posterior": xr.Dataset(variables, coords=coords)})


def compared(*fits: FakeFit) -> SimpleNamespace:
    """A comparison of fakes, made by the real one's table."""
    from bayeslmm.compare import compare

    return compare(*fits)
