"""The notebook, executed from top to bottom on the sample data."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with links to the repository's files, where the notebook may write."""
    for name in ("src", "weights", *(path.name for path in ROOT.glob("*.py"))):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_every_cell_runs(checkout, monkeypatch):
    monkeypatch.setenv("INSTALL", "0")
    monkeypatch.setenv("MINUTES", "1")
    # the commands after ! take the Python of these tests
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "notebooks" / "restore.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(checkout)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text and "error:" not in text, text
    expected = "best validation score, images, mean: S, submission.zip, report.html, 5 fold(s)"
    assert all(part in text for part in expected.split(", ")), text
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (checkout / "outputs" / "notebook" / "submission.zip").exists()
