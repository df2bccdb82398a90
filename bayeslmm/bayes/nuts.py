"""nutpie's NUTS on a compiled density, and what is left of it after Ctrl-C: the draws so far, of one length over the chains."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayeslmm.bayes.samplers import Settings

__all__ = ["SECONDS", "cpu_seconds", "heard_interrupt", "nuts", "whole"]

type Array = np.ndarray


SECONDS = "sampling_seconds"
"""Attribute of the tree's `sample_stats`: the processor time of sampling, all chains together."""


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def nuts(compiled: Any, settings: Settings) -> Any:
    """Return the DataTree of nutpie's draws from a compiled density; after Ctrl-C with fewer draws and perhaps fewer chains."""
    import nutpie

    before = cpu_seconds()
    with _panics_as_errors():
        raw = nutpie.sample(
            compiled,
            draws=settings.draws,
            tune=settings.tune,
            chains=settings.chains,
            cores=settings.cores,
            seed=settings.seed,
            save_warmup=False,
            progress_bar=settings.progressbar,
            target_accept=settings.target_accept,
        )
    raw["sample_stats"].attrs[SECONDS] = cpu_seconds() - before
    return whole(raw)


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn a panic of nutpie's, which is no `Exception`, into one: chains that find no point to start from end in it."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as panic:
        first = panic.__context__ if panic.__context__ is not None else panic
        raise RuntimeError(
            str(first).partition("Err` value: ")[2].splitlines()[0] if "Err` value: " in str(first) else str(first)
        ) from panic


def whole(raw: Any) -> Any:
    """Return a tree without the draws that are missing, such that chains x draws is greatest; as it is where none are.

    An interrupted nutpie returns as many draws as its longest chain has, and NaN for those that other chains have not.
    """
    posterior = raw["posterior"].to_dataset()
    if not _missing(posterior.isel(draw=slice(-1, None))).any():
        return raw
    missing = _missing(posterior)
    lengths = np.where(missing.any(axis=1), missing.argmax(axis=1), missing.shape[1])
    order = np.argsort(-lengths, kind="stable")
    number = int(np.argmax(lengths[order] * np.arange(1, len(order) + 1))) + 1
    return _cut(raw, np.sort(order[:number]), int(lengths[order[number - 1]]))


def _missing(posterior: Any) -> Array:
    """Return where (chain, draw) all variables are NaN throughout."""
    missing = np.ones((posterior.sizes["chain"], posterior.sizes["draw"]), dtype=bool)
    for variable in posterior.data_vars.values():
        values = variable.transpose("chain", "draw", ...).values
        if values.size and values.dtype.kind == "f":
            missing &= np.isnan(values.reshape(*missing.shape, -1)).all(axis=2)
    return missing


def _cut(raw: Any, chains: Array, length: int) -> Any:
    """Return the tree with some chains, numbered anew, and their first draws; `diverging` is a truth again, which padding made a number."""
    import xarray as xr

    groups = {}
    for name in raw.children:
        kept = raw[name].to_dataset()
        if {"chain", "draw"} <= set(kept.sizes):
            kept = kept.isel(chain=chains, draw=slice(length)).assign_coords(chain=np.arange(len(chains)), draw=np.arange(length))
        if "diverging" in kept:
            kept["diverging"] = kept["diverging"].astype(bool)
        groups[name] = kept
    return xr.DataTree.from_dict(groups)


@contextmanager
def heard_interrupt() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C was pressed, which a sampler may have answered by itself; it acts as before."""
    before = signal.getsignal(signal.SIGINT)
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return

    def hear(number: int, frame: Any) -> None:
        heard.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: bool(heard)
    finally:
        signal.signal(signal.SIGINT, before)
