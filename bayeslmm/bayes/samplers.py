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
from bayeslmm.bayes.direct import limit as direct_limit
from bayeslmm.bayes.direct import sample_direct
from bayeslmm.bayes.nuts import SECONDS, cpu_seconds, heard_interrupt, nuts
from bayeslmm.bayes.shared_data import named_as, refilled, separated
from bayeslmm.bayes.translate import translate
from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["SAMPLERS", "TARGET_ACCEPT", "Sampler", "Settings", "sample", "sampler_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to sample: sizes, seed, cores, the target acceptance, whether a progress bar is wanted.

    `retry`: whether divergences may be met by a second attempt with a higher target acceptance; `fallback`: the sampler to take where the
    first fails.
    """

    chains: int
    draws: int
    tune: int
    cores: int
    seed: int
    target_accept: float
    progressbar: bool
    retry: bool = False
    fallback: str | None = None


type PymcSampler = Callable[[Any, Sequence[str], Settings], Any]


TARGET_ACCEPT = 0.9
"""Above the samplers' own 0.8: the posteriors of standard deviations near zero are narrow there. Without random effects they are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A sampler: `run`, a function of (model, names of the variables to keep, settings) that returns a DataTree.

    `package`: what it needs installed. `limit`: why it cannot sample a model, None where it can. `target_accept`: where none is asked for.
    """

    run: Callable[[Model, Sequence[str], Settings], Any]
    package: str
    limit: Callable[[Model], str | None] = lambda model: None
    target_accept: float = TARGET_ACCEPT


def _translated(run: PymcSampler, package: str) -> Sampler:
    """Return a sampler of the model's translation to PyMC.

    Arithmetic is strict, so that a seed gives the same draws whether the density was compiled now or lay in the compiler's cache.
    """

    def run_translated(model: Model, names: Sequence[str], settings: Settings) -> Any:
        from pytensor.configdefaults import config
        from pytensor.scalar.basic import autocast_float_as

        # Reassociated sums depend on what the compiler inlines, which differs between a first compilation and one from its cache.
        with config.change_flags(numba__fastmath=False):
            # Numbers of one type, so that models that differ in them share a density.
            with autocast_float_as("float64"):  # type: ignore[no-untyped-call]
                translated = translate(model)
            before = cpu_seconds()
            raw = run(translated, names, settings)
        raw["sample_stats"].attrs.setdefault(SECONDS, cpu_seconds() - before)
        return raw

    return Sampler(run=run_translated, package=package)


def _nutpie(model: Any, names: Sequence[str], settings: Settings) -> Any:
    """nutpie's NUTS on a numba density (Seyboldt and others): the default, several times faster than PyMC's own."""
    return nuts(_compiled(model, names), settings)


_COMPILED: OrderedDict[tuple[str, ...], tuple[Any, tuple[Any, ...]]] = OrderedDict()
_COMPILED_LIMIT = 8


def _compiled(model: Any, names: Sequence[str]) -> Any:
    """Return nutpie's compiled density; compiling takes seconds, so the last few of this process are kept, for whatever data.

    Chains start apart in everything but the slopes, which start at their priors' centres: a unit off, times a predictor of
    large values, is an eta that no chain comes back from.
    """
    import nutpie

    apart = separated(model)
    key = (apart.structure, *names)
    if key in _COMPILED:
        _COMPILED.move_to_end(key)
    else:
        moved = {variable for variable in apart.model.free_RVs if not variable.name.startswith("beta")}
        made = nutpie.compile_pymc_model(apart.model, backend="numba", var_names=list(names), jitter_rvs=moved)
        _COMPILED[key] = (made, apart.variables)
        if len(_COMPILED) > _COMPILED_LIMIT:
            _COMPILED.popitem(last=False)
    compiled, variables = _COMPILED[key]
    return named_as(refilled(compiled, variables, apart.values), model)


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
                callback=_ends_all_chains(settings) if name == "pymc" and settings.cores == 1 else None,
            )

    run.__doc__ = f"NUTS of {name}, called through PyMC."
    return run


def _ends_all_chains(settings: Settings) -> Callable[..., None]:
    """Return what PyMC calls at each draw: where a chain was cut short by Ctrl-C, those after it are too."""
    last = {"chain": 0, "draw": 0}

    def at_draw(*, trace: Any, draw: Any) -> None:
        if draw.chain != last["chain"] and last["draw"] < settings.tune + settings.draws - 1:
            raise KeyboardInterrupt
        last.update(chain=draw.chain, draw=draw.draw_idx)

    return at_draw


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
        "collapsed": Sampler(run=sample_collapsed, package="nutpie", limit=limit, target_accept=0.8),
        "direct": Sampler(run=sample_direct, package="nutpie", limit=direct_limit),
        "nutpie": _translated(_nutpie, "nutpie"),
        "pymc": _translated(_by_pymc("pymc"), "pymc"),
        "numpyro": _translated(_by_pymc("numpyro"), "numpyro"),
        "blackjax": _translated(_blackjax, "blackjax"),
    }
)
"""Every sampler by its name."""

AUTO = ("collapsed", "direct", "nutpie")
"""What `"auto"` stands for: the first that can sample the model."""


def sampler_named(name: str, model: Model) -> str:
    """Return the sampler that a name stands for: for `"auto"`, the first of `AUTO` that can sample the model.

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


def fallback_of(name: str, model: Model) -> str | None:
    """Return the sampler that follows another in `AUTO` and can sample the model, None where there is none."""
    after = AUTO[AUTO.index(name) + 1 :] if name in AUTO else ()
    return next((one for one in after if SAMPLERS[one].limit(model) is None), None)


def sample(name: str, model: Model, names: Sequence[str], settings: Settings) -> Any:
    """Draw from a model's posterior in silence (but for the progress bar) and return the sampler's DataTree.

    After Ctrl-C it has the draws so far, where the sampler keeps them (nutpie and PyMC): fewer, and perhaps of fewer chains.

    Raises
    ------
    FitError
        If the sampler cannot start or breaks off, with its own message; if it was interrupted before the first draw.
    """
    with _quiet(), heard_interrupt() as interrupted:
        try:
            return SAMPLERS[name].run(model, names, settings)
        except Exception as failure:  # whatever a sampler raises: it is not of this package
            if interrupted():
                raise FitError("sampling was interrupted before the first draw: nothing is kept") from KeyboardInterrupt()
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
