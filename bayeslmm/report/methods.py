"""Methods sentences, provenance and citations: what is known of a fit is said, what is not is marked, nothing is made up."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from bayeslmm.fit import Fit
from bayeslmm.model import Model
from bayeslmm.report.records import NOT_RECORDED, number

__all__ = ["CITATIONS", "data_hash", "methods_sentences", "provenance_rows"]

PACKAGES = ("bayeslmm", "numpy", "scipy", "numba", "pandas", "pymc", "pytensor", "nutpie", "arviz", "matplotlib")

CITATIONS = (
    (
        "classical",
        "Bates, Mächler, Bolker and Walker (2015). Fitting linear mixed-effects models using lme4. "
        "Journal of Statistical Software 67(1), 1-48. doi:10.18637/jss.v067.i01 (the algorithm).",
    ),
    (
        "posterior",
        "Abril-Pla, Andreani, Carroll, et al. (2023). PyMC: a modern and comprehensive probabilistic programming framework in Python. "
        "PeerJ Computer Science 9, e1516. doi:10.7717/peerj-cs.1516.",
    ),
    ("posterior", "Hoffman and Gelman (2014). The No-U-Turn sampler. Journal of Machine Learning Research 15, 1593-1623."),
    ("posterior", "Seyboldt and PyMC Developers. nutpie: a fast sampler for Bayesian posteriors (software)."),
    (
        "posterior",
        "Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021). Rank-normalization, folding, and localization: an improved R-hat "
        "for assessing convergence of MCMC. Bayesian Analysis 16, 667-718. doi:10.1214/20-BA1221.",
    ),
    (
        "posterior",
        "Lewandowski, Kurowicka and Joe (2009). Generating random correlation matrices based on vines and extended onion method. "
        "Journal of Multivariate Analysis 100, 1989-2001 (the LKJ prior).",
    ),
    ("any", "The bayeslmm developers. bayeslmm: mixed models for scientists (software)."),
)
"""Which fits need it (`classical`, `posterior`, `any`), and the reference."""


def methods_sentences(pairs: Sequence[tuple[str, Fit]]) -> Iterator[str]:
    """Yield the sentences: data and model once, then a paragraph for each fit."""
    model = pairs[0][1].model
    yield _model_sentence(model)
    for label, fit in pairs:
        yield _posterior_sentence(label, fit) if fit.draws().n_draws > 1 else _classical_sentence(label, fit)


def _model_sentence(model: Model) -> str:
    design = model.design
    groups = ", ".join(f"{block.group} ({block.n_levels} levels)" for block in {block.group: block for block in design.blocks}.values())
    dropped = ", ".join(f"{count} dropped for {reason}" for reason, count in design.lost.items())
    return (
        f"A mixed model of {design.response_name} (family {model.family.name}, {model.link.name} link), {model.formula}, "
        f"was fitted to {len(design.y)} rows"
        + (f" ({dropped})" if dropped else "")
        + (f" with grouping factors {groups}." if groups else ".")
        + (f" Fixed effects: {', '.join(design.fixed_names)}." if design.fixed_names else "")
    )


def _classical_sentence(label: str, fit: Fit) -> str:
    ok = fit.diagnose().ok
    state = "The optimiser's convergence checks passed." if ok else f"The fit failed these checks: {_failed(fit)}."
    search = getattr(fit, "search", None)
    optimiser = getattr(search, "optimiser", None) or NOT_RECORDED
    evaluations = getattr(search, "evaluations", None)
    count = "" if evaluations is None else f", {evaluations} evaluations"
    return (
        f"{label}: the model was fitted by {_method(fit.method)} with bayeslmm {_version('bayeslmm')} "
        f"(optimiser {optimiser}{count}). {state} {_fixed_results(fit)}"
    )


def _posterior_sentence(label: str, fit: Fit) -> str:
    tree: Any = getattr(fit, "tree", None)
    sizes = dict(tree["posterior"].sizes) if tree is not None else {}
    chains, draws = sizes.get("chain", NOT_RECORDED), sizes.get("draw", NOT_RECORDED)
    values = {check.code: check.value for check in fit.diagnose()}
    rhat, bulk, tail = (_find(values, *names) for names in (("rhat",), ("ess_bulk", "bulk"), ("ess_tail", "tail")))
    divergences = _find(values, "diverg")
    state = "All checks passed." if fit.diagnose().ok else f"The fit failed these checks: {_failed(fit)}."
    notes = "".join(f"{note[:1].upper()}{note[1:]}. " for note in (recorded(fit, "notes") or {}).values())
    return (
        f"{label}: the posterior was sampled by NUTS (sampler {_said(fit, 'sampler')}{_SAMPLERS.get(_said(fit, 'sampler'), '')}) "
        f"with PyMC {_version('pymc')} and bayeslmm {_version('bayeslmm')}: "
        f"{chains} chains of {draws} draws after {_said(fit, 'tune')} of warm-up, "
        f"target acceptance {_said(fit, 'target_accept')}, seed {_said(fit, 'seed')}. "
        f"Largest R-hat {rhat}, smallest bulk ESS {bulk}, smallest tail ESS {tail}, divergent transitions {divergences}. {notes}{state} "
        f"Priors are listed in full in the section Priors. {_fixed_results(fit)}"
    )


_METHODS = {
    "REML": "restricted maximum likelihood (REML), by penalised least squares as in lme4",
    "ML": "maximum likelihood (ML), by penalised least squares as in lme4",
    "Laplace": "maximum likelihood with Laplace's approximation of the integral over the random effects",
    "PIRLS": "penalised iteratively reweighted least squares, coefficients and random effects together",
    "MAP": "restricted maximum likelihood (REML) with the boundary-avoiding prior of Chung et al. (2013) on the covariance parameters",
}
_QUADRATURE = re.compile(r"AGQ\((\d+)\)")
_SAMPLERS = {"collapsed": ": random effects integrated out, then drawn exactly; run by nutpie"}


def _method(method: str) -> str:
    """Return a fit's method in words: how the likelihood was had, the prior that keeps it off the boundary, the penalty."""
    approximation, _, penalty = method.partition(", penalty ")
    inner = re.fullmatch(r"MAP \((.+)\)", approximation)
    name = inner.group(1) if inner else approximation
    words = _METHODS.get(name, name)
    if nodes := _QUADRATURE.fullmatch(name):
        words = f"maximum likelihood with adaptive Gauss-Hermite quadrature ({nodes.group(1)} nodes)"
    if inner:
        words += ", with the boundary-avoiding prior of Chung et al. (2013) on the covariance parameters"
    return f"{words}, with {_PENALTIES.get(penalty, f'the priors {penalty}')} on the coefficients" if penalty else words


_PENALTIES = {"jeffreys": "Jeffreys' prior (Firth 1993)", "prior": "the model's own priors"}


def _fixed_results(fit: Fit) -> str:
    """Say each fixed effect with its standard error and interval: `Days: b = 10.47, SE 1.546, 95% CI [7.4, 13.5]`."""
    table = fit.estimates[fit.estimates["part"] == "fixed"]
    interval = "95% CrI" if fit.draws().n_draws > 1 else "95% CI"
    numbers = table[["estimate", "se", "lower", "upper"]].to_numpy(dtype=float)
    said = [
        f"{term}: b = {number(b)}, SE {number(se)}, {interval} [{number(low)}, {number(high)}]"
        for term, (b, se, low, high) in zip(table["term"], numbers, strict=True)
    ]
    return ("Fixed effects: " + "; ".join(said) + ".") if said else ""


def _failed(fit: Fit) -> str:
    return ", ".join(check.code for check in fit.diagnose().failed if check.severity == "error")


def _find(values: dict[str, float], *parts: str) -> str:
    """Return the value of the first check whose code holds one of the parts."""
    found = next((value for code, value in values.items() if any(part in code.lower() for part in parts)), None)
    return NOT_RECORDED if found is None else number(float(found))


def recorded(fit: Fit, name: str) -> Any:
    """Return an entry of the fit's provenance, None where it is not recorded."""
    provenance: Any = getattr(fit, "provenance", None)
    return provenance.get(name) if hasattr(provenance, "get") else getattr(provenance, name, None)


def _said(fit: Fit, name: str) -> str:
    value = recorded(fit, name)
    return NOT_RECORDED if value is None else str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "bayeslmm":
            from bayeslmm import __version__

            return __version__
        return NOT_RECORDED


def data_hash(model: Model) -> str:
    """Return the SHA-256 of the response, the fixed-effects matrix and every random term's values and levels, on the rows used."""
    design = model.design
    digest = hashlib.sha256()
    arrays = [design.y, design.X, design.weights, design.offset, *(part for block in design.blocks for part in (block.index, block.values))]
    for array in (*arrays, *([] if design.trials is None else [design.trials])):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    digest.update("\x1f".join((*design.fixed_names, *(level for block in design.blocks for level in block.levels))).encode())
    return digest.hexdigest()


def provenance_rows(pairs: Sequence[tuple[str, Fit]]) -> Iterator[tuple[str, str]]:
    """Yield what and value: formula, data hash, seeds, versions."""
    model = pairs[0][1].model
    yield "Formula", str(model.formula)
    yield "Family and link", f"{model.family.name}, {model.link.name}"
    yield "Dialect", model.dialect
    yield "SHA-256 of the data used", data_hash(model)
    for label, fit in pairs:
        yield f"Seed, {label}", _said(fit, "seed") if fit.draws().n_draws > 1 else "none needed"
    yield "Python", platform.python_version()
    yield "Platform", platform.platform()
    for package in PACKAGES:
        yield package, _version(package)
