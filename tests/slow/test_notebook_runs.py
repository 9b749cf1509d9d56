"""The notebook, executed from top to bottom on the sample data."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from src.datasets.build import build, sample_photos

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("layout", ["checkout", "Kaggle", "Colab"])
def test_every_cell_runs(layout, tmp_path, monkeypatch):
    """On Kaggle, code and data lie elsewhere; on Colab, below the folder where it runs."""
    work, places = tmp_path / "work", tmp_path / ("inputs" if layout == "Kaggle" else "work")
    code = work if layout == "checkout" else places / "user" / "restore-photo"
    code.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    for name in ("src", "weights", *(path.name for path in ROOT.glob("*.py"))):
        (code / name).symlink_to(ROOT / name)
    if layout != "checkout":
        photos = sample_photos()
        build(photos, photos[0].parent, places / "dacon" / "open", 2, 0.1, seed=2)
    monkeypatch.setenv("PLACES", str(places))
    monkeypatch.setenv("INSTALL", "0")
    monkeypatch.setenv("MINUTES", "0.5")
    # the commands after ! take the Python of these tests
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "notebooks" / "restore.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(work)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text and "error:" not in text, text
    expected = ["good images", "best validation score", "submission.zip", "5 fold(s)"]
    expected += ["report.html"] if layout == "checkout" else [f"data: {places}/dacon/open"]
    assert all(part in text for part in expected), text
    assert any("image/png" in output.get("data", {}) for output in outputs)
    folder = {"Kaggle": work / "restore-photo"}.get(layout, code)
    assert (folder / "outputs" / "notebook" / "submission.zip").exists()
