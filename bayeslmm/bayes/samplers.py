"""The samplers of a model's posterior, one function each; `SAMPLERS` lists them by name."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.collapsed import limit, sample_collapsed
from bayeslmm.bayes.translate import translate
from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["SAMPLERS", "TARGET_ACCEPT", "Sampler", "Settings", "sample", "sampler_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to sample: sizes, seed, cores, the target acceptance, whether a progress bar is wanted.

    `key` names the model's content: models of equal key share one compiled density in this process.
    """

    chains: int
    draws: int
    tune: int
    cores: int
    seed: int
    target_accept: float
    progressbar: bool
    key: str


type PymcSampler = Callable[[Any, Sequence[str], Settings], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A sampler: `run`, a function of (model, names of the variables to keep, settings) that returns a DataTree.

    `package`: what it needs installed. `limit`: why it cannot sample a model, None where it can.
    """

    run: Callable[[Model, Sequence[str], Settings], Any]
    package: str
    limit: Callable[[Model], str | None] = lambda model: None


def _translated(run: PymcSampler, package: str) -> Sampler:
    """Return a sampler of the model's translation to PyMC.

    Arithmetic is strict, so that a seed gives the same draws whether the density was compiled now or lay in the compiler's cache.
    """

    def run_translated(model: Model, names: Sequence[str], settings: Settings) -> Any:
        from pytensor.configdefaults import config

        # Reassociated sums depend on what the compiler inlines, which differs between a first compilation and one from its cache.
        with config.change_flags(numba__fastmath=False):
            return run(translate(model), names, settings)

    return Sampler(run=run_translated, package=package)


def _nutpie(model: Any, names: Sequence[str], settings: Settings) -> Any:
    """nutpie's NUTS on a numba density (Seyboldt and others): the default, several times faster than PyMC's own."""
    import nutpie

    return nutpie.sample(
        _compiled(model, names, settings.key),
        draws=settings.draws,
        tune=settings.tune,
        chains=settings.chains,
        cores=settings.cores,
        seed=settings.seed,
        save_warmup=False,
        progress_bar=settings.progressbar,
        target_accept=settings.target_accept,
    )


_COMPILED: OrderedDict[str, Any] = OrderedDict()
_COMPILED_LIMIT = 8


def _compiled(model: Any, names: Sequence[str], key: str) -> Any:
    """Return nutpie's compiled density; compiling takes seconds, so the last few of this process are kept.

    Chains start apart in everything but the slopes, which start at their priors' centres: a unit off, times a predictor of
    large values, is an eta that no chain comes back from.
    """
    import nutpie

    if key in _COMPILED:
        _COMPILED.move_to_end(key)
        return _COMPILED[key]
    moved = {variable for variable in model.free_RVs if not variable.name.startswith("beta")}
    compiled = nutpie.compile_pymc_model(model, backend="numba", var_names=list(names), jitter_rvs=moved)
    _COMPILED[key] = compiled
    if len(_COMPILED) > _COMPILED_LIMIT:
        _COMPILED.popitem(last=False)
    return compiled


def _by_pymc(name: str) -> PymcSampler:
    def run(model: Any, names: Sequence[str], settings: Settings) -> Any:
        import pymc as pm

        with model:
            return pm.sample(
                draws=settings.draws,
                tune=settings.tune,
                chains=settings.chains,
                cores=settings.cores,
                random_seed=settings.seed,
                progressbar=settings.progressbar,
                quiet=not settings.progressbar,
                nuts_sampler=name,
                var_names=list(names),
                compute_convergence_checks=False,
                nuts={"target_accept": settings.target_accept},
            )

    run.__doc__ = f"NUTS of {name}, called through PyMC."
    return run


def _blackjax(model: Any, names: Sequence[str], settings: Settings) -> Any:
    """blackjax's NUTS with window adaptation, all chains at once; called directly, as PyMC's own call needs an older blackjax."""
    import arviz_base
    import blackjax  # type: ignore[import-untyped, unused-ignore]
    import jax
    from pymc.sampling.jax import get_jaxified_graph, get_jaxified_logp

    logp = get_jaxified_logp(model)
    start = [model.initial_point()[variable.name] for variable in model.value_vars]

    def one_chain(key: Any) -> Any:
        at, tuning, drawing = jax.random.split(key, 3)
        jitter = jax.random.split(at, len(start))
        position = [value + jax.random.uniform(one, value.shape, minval=-1.0, maxval=1.0) for one, value in zip(jitter, start, strict=True)]
        adaptation = blackjax.window_adaptation(blackjax.nuts, logp, target_acceptance_rate=settings.target_accept)
        (state, parameters), _ = adaptation.run(tuning, position, num_steps=settings.tune)
        step = blackjax.nuts(logp, **parameters).step

        def draw(state: Any, key: Any) -> Any:
            state, info = step(key, state)
            stats = {"diverging": info.is_divergent, "energy": info.energy, "n_steps": info.num_integration_steps}
            return state, (state.position, stats)

        return jax.lax.scan(draw, state, jax.random.split(drawing, settings.draws))[1]

    positions, stats = jax.jit(jax.vmap(one_chain))(jax.random.split(jax.random.PRNGKey(settings.seed), settings.chains))
    outputs = model.replace_rvs_by_values([model[name] for name in names])
    values = jax.vmap(jax.vmap(get_jaxified_graph(inputs=model.value_vars, outputs=outputs)))(*positions)
    return arviz_base.from_dict(
        {
            "posterior": dict(zip(names, map(np.asarray, values), strict=True)),
            "sample_stats": {key: np.asarray(value) for key, value in stats.items()},
        },
        coords={dim: list(labels) for dim, labels in model.coords.items()},
        dims={name: list(model.named_vars_to_dims.get(name, ())) for name in names},
    )


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "collapsed": Sampler(run=sample_collapsed, package="nutpie", limit=limit),
        "nutpie": _translated(_nutpie, "nutpie"),
        "pymc": _translated(_by_pymc("pymc"), "pymc"),
        "numpyro": _translated(_by_pymc("numpyro"), "numpyro"),
        "blackjax": _translated(_blackjax, "blackjax"),
    }
)
"""Every sampler by its name."""

AUTO = ("collapsed", "nutpie")
"""What `"auto"` stands for: the first that can sample the model."""
TARGET_ACCEPT = 0.9
"""Above the samplers' own 0.8: the posteriors of standard deviations near zero are narrow there."""


def sampler_named(name: str, model: Model) -> str:
    """Return the sampler that a name stands for: for `"auto"`, the collapsed one where it applies, else nutpie.

    Raises
    ------
    FitError
        If there is none of that name, its package is not installed, or it cannot sample the model.
    """
    known = ["auto", *SAMPLERS]
    if name not in known:
        raise FitError(f"unknown sampler {name!r}{suggest(str(name), known)}; known: {', '.join(known)}")
    chosen = next(one for one in AUTO if SAMPLERS[one].limit(model) is None) if name == "auto" else name
    reason = SAMPLERS[chosen].limit(model)
    if reason is not None:
        raise FitError(f"the sampler '{chosen}' does not apply: {reason}; leave sampler='auto'")
    if find_spec(SAMPLERS[chosen].package) is None:
        raise FitError(f"the sampler '{chosen}' is not installed; install bayeslmm[jax], or leave sampler='auto'")
    return chosen


def sample(name: str, model: Model, names: Sequence[str], settings: Settings) -> Any:
    """Draw from a model's posterior in silence (but for the progress bar) and return the sampler's DataTree.

    Raises
    ------
    FitError
        If the sampler cannot start or breaks off, with its own message.
    """
    with _quiet():
        try:
            return SAMPLERS[name].run(model, names, settings)
        except Exception as failure:  # whatever a sampler raises: it is not of this package
            said = str(failure).strip() or type(failure).__name__
            raise FitError(f"the sampler '{name}' failed: {said.splitlines()[0]}") from failure


def shows_progress(wanted: bool) -> bool:
    """Whether a progress bar is wanted and both streams are a terminal."""
    return wanted and sys.stderr.isatty() and sys.stdout.isatty()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_LOGGERS = ("pymc", "nutpie", "pytensor", "numba", "jax", "arviz_base")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep third parties' log lines and their warnings about their own installation from the user."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
