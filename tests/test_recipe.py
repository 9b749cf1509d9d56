"""Resuming: the same recipe goes on, another one is refused with what differs."""

import json
import os
import shutil

import pytest

from src.utils.errors import InputError
from src.utils.files import begin, identity, read_recipe

RECIPE = {"seed": 0, "lr": 1e-3, "photos": {"a.jpg": [1, 2]}, "minutes": (1, 2)}


@pytest.fixture
def begun(tmp_path):
    assert begin(tmp_path / "run", RECIPE) is False
    return tmp_path / "run"


def test_the_same_recipe_resumes(begun):
    assert begin(begun, dict(reversed(RECIPE.items()))) is True
    moved = shutil.move(begun, begun.with_name("moved"))
    assert begin(moved, RECIPE | {"new": None}) is True
    assert read_recipe(moved)["minutes"] == [1, 2] and read_recipe(begun) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"seed": 1, "lr": 0.1}, "lr was 0.001 and is 0.1; seed was 0 and is 1"),
        ({"more": 1}, "more was added"),
        ({"seed": None}, "seed was removed"),
        ({"photos": {"a.jpg": [1, 3]}}, "photos/a.jpg was changed"),
        ({"photos": {"b.jpg": [1, 2]}}, "photos/a.jpg was removed; photos/b.jpg was added"),
        (dict.fromkeys("abcde", 9), "a was added; b was added; c was added and 2 more"),
    ],
)
def test_another_recipe_is_refused_with_up_to_three_differences(begun, change, found):
    before = (begun / "recipe.json").read_bytes()
    with pytest.raises(InputError) as refused:
        begin(begun, RECIPE | change, remedy="delete it", hint="earlier run")
    message = f"{begun / 'recipe.json'}: begun with another recipe ({found}); delete it"
    assert (str(refused.value), refused.value.hint) == (message, "earlier run")
    assert (begun / "recipe.json").read_bytes() == before


def test_some_settings_may_change(begun):
    assert begin(begun, RECIPE | {"seed": 5, "workers": 2}, may_change={"seed", "workers"})
    assert json.loads((begun / "recipe.json").read_text())["seed"] == 5
    with pytest.raises(InputError, match=r"lr was 0\.001 and is 1"):
        begin(begun, RECIPE | {"seed": 6, "lr": 1}, may_change={"seed", "workers"})


def test_a_file_is_identified_by_its_size_and_time(tmp_path):
    path = tmp_path / "a"
    assert identity(path) is None
    path.write_bytes(b"one")
    before = identity(path)
    assert before == [3, path.stat().st_mtime_ns]
    os.utime(path, (1, 1))
    assert identity(path) != before
