"""The samplers of a `pymc.Model`, one function each; `SAMPLERS` lists them by name."""

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
from typing import Any

from bayeslmm.errors import FitError, suggest

__all__ = ["SAMPLERS", "TARGET_ACCEPT", "Settings", "sample", "sampler_named"]


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


type Sampler = Callable[[Any, Sequence[str], Settings], Any]


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
    """Return nutpie's compiled density; compiling takes seconds, so the last few of this process are kept."""
    import nutpie

    if key in _COMPILED:
        _COMPILED.move_to_end(key)
        return _COMPILED[key]
    compiled = nutpie.compile_pymc_model(model, backend="numba", var_names=list(names))
    _COMPILED[key] = compiled
    if len(_COMPILED) > _COMPILED_LIMIT:
        _COMPILED.popitem(last=False)
    return compiled


def _by_pymc(name: str) -> Sampler:
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


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {"nutpie": _nutpie, "pymc": _by_pymc("pymc"), "numpyro": _by_pymc("numpyro"), "blackjax": _by_pymc("blackjax")}
)
"""Sampler name -> function of (pymc model, names of the variables to keep, settings), which returns a DataTree."""

AUTO = "nutpie"
TARGET_ACCEPT = 0.9
"""Above the samplers' own 0.8: the posteriors of standard deviations near zero are narrow there."""


def sampler_named(name: str) -> str:
    """Return the sampler that a name stands for (`"auto"` is nutpie).

    Raises
    ------
    FitError
        If there is none of that name, or its package is not installed.
    """
    known = ["auto", *SAMPLERS]
    if name not in known:
        raise FitError(f"unknown sampler {name!r}{suggest(str(name), known)}; known: {', '.join(known)}")
    chosen = AUTO if name == "auto" else name
    if find_spec(chosen) is None:
        raise FitError(f"the sampler '{chosen}' is not installed; install bayeslmm[jax], or leave sampler='auto'")
    return chosen


def sample(name: str, model: Any, names: Sequence[str], settings: Settings) -> Any:
    """Draw from a `pymc.Model` in silence (but for the progress bar) and return the sampler's DataTree.

    Raises
    ------
    FitError
        If the sampler cannot start or breaks off, with its own message.
    """
    with _quiet():
        try:
            return SAMPLERS[name](model, names, settings)
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
