"""A photo's walk through the code: few functions, few conversions between numpy and torch."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import src
from src.color.lattice import luma
from src.models import create_model
from src.pipeline import Pipeline

MAX_FUNCTIONS, MAX_CONVERSIONS = 60, 7


def conversions(monkeypatch) -> list[str]:
    """The list that grows by one name with each conversion from now on."""
    made = []

    def counted(name, function):
        return lambda *arguments, **options: made.append(name) or function(*arguments, **options)

    for owner, name in (
        (torch, "from_numpy"),
        (torch, "as_tensor"),
        (torch, "tensor"),
        (torch.Tensor, "numpy"),
        (torch.Tensor, "__array__"),
    ):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return made


@pytest.mark.parametrize("style", ["score", "visual"])
def test_a_photo_walks_through_once(monkeypatch, style):
    """Five folds, two views, the hole known; after a first photo that fills the caches."""
    folder, functions = str(Path(src.__file__).parent), set()
    gray, mask = luma(data.astronaut()).copy(), np.zeros((512, 512), bool)
    mask[200:240, 150:210], gray[200:240, 150:210] = True, 20
    models = [create_model("restorer").eval() for _ in range(5)]
    pipeline = Pipeline(models, tta=2, style=style)
    first = pipeline(gray, mask)
    made = conversions(monkeypatch)

    def trace(frame, event, _):
        code = frame.f_code
        comprehension = code.co_name.startswith("<")  # no frame of its own from Python 3.12 on
        if event == "call" and code.co_filename.startswith(folder) and not comprehension:
            functions.add((code.co_filename, code.co_qualname))

    sys.setprofile(trace)
    try:
        again = pipeline(gray, mask)
    finally:
        sys.setprofile(None)
    assert np.array_equal(first, again)
    assert len(made) <= MAX_CONVERSIONS, made
    if style == "score":  # the visual style also copies texture, on threads
        found = sorted(f"{Path(file).name}:{name}" for file, name in functions)
        assert len(functions) <= MAX_FUNCTIONS, " ".join(found)
