"""Save a fit to one file and load it again: JSON, arrays and Zarr, never pickle; a loaded fit must have the objective that it had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayeslmm.errors import PersistenceError
from bayeslmm.persistence import archive

if TYPE_CHECKING:
    from bayeslmm.bayes import BayesFit
    from bayeslmm.classical import ClassicalFit
    from bayeslmm.compare import Comparison

__all__ = ["load", "save"]


def load(path: Any) -> ClassicalFit | BayesFit | Comparison:
    """Return the fit, or the comparison, that `fit.save(path)` wrote; it does all that it did before.

    The model is built again from formula, data and priors, and its objective is computed again: the criterion at the estimates of a
    classical fit, the log-likelihood at some draws of a posterior. Nothing in the file is run, so that a file of unknown origin can
    be opened: it is JSON, `.npy` and Zarr arrays in a zip, and digests of them.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    PersistenceError
        If there is no such file; if it is not one of `save`, is of a later format, cut short or changed; if the model cannot be
        built again, as where it uses a function that `register_transform` has not been told of in this session; or if the objective
        is not, within 1e-8 of its size, what it was.

    Examples
    --------
    >>> import os, tempfile
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(os.path.join(folder, "sleep.blmm"))
    ...     again = bl.load(os.path.join(folder, "sleep.blmm"))
    >>> again.criterion == fit.criterion, again.fixef().round(2).to_dict()
    (True, {'(Intercept)': 251.41, 'Days': 10.47})
    """
    place = archive.target(path)
    found: ClassicalFit | BayesFit | Comparison = _restored(f"{place}: ", archive.read(place))
    return found


def save(fit: Any, path: Any) -> None:
    """Write a fit or a comparison to one file, whole or not at all; see the `save` of each.

    Raises
    ------
    PersistenceError
        If it cannot be saved, or not there; a file that was there is then as it was.
    """
    from bayeslmm.persistence.fits import contents_of

    place = archive.target(path)
    archive.write(place, contents_of(fit), lambda part: _check_whole(place, part))


def _restored(before: str, contents: archive.Contents) -> Any:
    from bayeslmm.persistence.fits import restored

    try:
        return restored(contents)
    except PersistenceError as error:
        raise PersistenceError(f"{before}{error}") from error


def _check_whole(place: Path, part: Path) -> None:
    """Read back what was written: what cannot be loaded is not kept."""
    _restored(f"{place} is not written, because it could not be loaded again: ", archive.read(part))
