"""The notebook as it lies in the repository; tests/slow executes it."""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def test_nothing_is_kept_in_it():
    """No output of some machine, and no path of one."""
    notebook = nbformat.read(ROOT / "notebooks" / "restore.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
