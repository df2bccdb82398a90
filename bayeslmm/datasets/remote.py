"""Data sets that are not bundled: downloaded once through pooch, brought into the shape that the registry describes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bayeslmm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONVERTERS", "fetch"]

TIMEOUT_S = 30


def fetch(name: str, url: str, data_dir: str) -> Path:
    """Return the path of the downloaded file, from the user's cache where it is there already.

    The checksum of the raw file is not known, so none is asked of pooch: the caller verifies the table made of it.

    Parameters
    ----------
    name
        The data set's name, part of the cached file's.
    url
        Where to download from.
    data_dir
        The environment variable that names a local folder, for the message.

    Raises
    ------
    DataError
        The download failed.
    """
    import pooch

    try:
        path = pooch.retrieve(
            url=url,
            known_hash=None,
            fname=f"{name}.raw",
            path=pooch.os_cache("bayeslmm"),
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"data set '{name}' cannot be downloaded ({type(error).__name__}); "
            f"go online, or put {name}.csv in a folder and name it in {data_dir}"
        ) from None
    return Path(path)


def convert_school(text: str, url: str) -> pd.DataFrame:
    """Return the table of J. Starkweather's school data: a CSV with all columns as they are."""
    frame = _table(text, url, {"class": str, "school": str})
    columns = ["id", "extro", "open", "agree", "social", "class", "school"]
    return _need(frame, columns, url)[columns]


def convert_md_red(text: str, url: str) -> pd.DataFrame:
    """Return the part of Diachek et al. (2020) that the fMRI tutorial uses: system MD, experiments 19 to 24.

    Subjects are renamed S001, S002, ... in the sorted order of their identifiers.
    """
    columns = ["Experiment", "Region", "SubjectID", "Condition", "Hemisphere", "Effect_Size"]
    frame = _need(_table(text, url, dict.fromkeys(columns[:-1], str)), [*columns, "System"], url)
    wanted = [f"Experiment{number}" for number in range(19, 25)]
    kept = frame[(frame["System"] == "MD") & frame["Experiment"].isin(wanted)].copy()
    kept = kept.sort_values("Experiment", kind="stable", key=lambda column: column.map(wanted.index))
    codes = {subject: f"S{number:03d}" for number, subject in enumerate(sorted(kept["SubjectID"].unique()), start=1)}
    kept["SubjectID"] = kept["SubjectID"].map(codes)
    return kept[columns].reset_index(drop=True)


CONVERTERS: Mapping[str, Callable[[str, str], pd.DataFrame]] = MappingProxyType({"school": convert_school, "md_red": convert_md_red})
"""Raw text (and its address, for messages) -> table; named by the registry's field `converter`."""


def _table(text: str, url: str, dtype: dict[str, type]) -> pd.DataFrame:
    import pandas as pd

    lines = "\n".join(line for line in text.splitlines() if line.strip())
    try:
        return pd.read_csv(io.StringIO(lines), dtype=dtype, na_values=["NA"], keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError):
        raise DataError(f"what {url} holds is not a CSV table") from None


def _need(frame: pd.DataFrame, columns: list[str], url: str) -> pd.DataFrame:
    lost = [name for name in columns if name not in frame.columns]
    if lost:
        raise DataError(f"what {url} holds has no column '{lost[0]}'", column=lost[0])
    return frame
