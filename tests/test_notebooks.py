"""Every notebook runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytestmark = [
    # jupyter_client and its event loop warn of their own affairs.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_stored(path: Path) -> None:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.sampling
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("BAYESLMM_DRAWS", "200")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) >= 8
    assert not [output for output in outputs if output.output_type == "error"]
    streams = " ".join(output.get("text", "") for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert re.search(r"Traceback|Error", streams) is None
    pictures = [output for output in outputs if output.output_type in ("display_data", "execute_result") and "image/png" in output.data]
    assert len(pictures) == 3
    written = list(tmp_path.glob("out/*.html"))
    assert len(written) == 1
