"""Is this the same recipe? What changed is told in words, and only what may change is passed over."""

import os

import pytest

from src.utils.errors import InputError
from src.utils.recipe import differences, identity, require_same, unchanged

EARLIER = {"seed": 0, "tta": 1, "photos": {"a": [1, 2]}, "lr": 1e-3}


def test_equal_recipes_have_no_differences():
    assert differences(EARLIER, dict(reversed(EARLIER.items()))) == []
    require_same("run", EARLIER, EARLIER | {}, "delete it")


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (EARLIER | {"seed": 1}, ["seed was 0 and is 1"]),
        (EARLIER | {"seed": 1, "lr": 0.1}, ["lr was 0.001 and is 0.1", "seed was 0 and is 1"]),
        (EARLIER | {"more": 1}, ["more was added"]),
        ({key: value for key, value in EARLIER.items() if key != "tta"}, ["tta was removed"]),
        (EARLIER | {"photos": {"a": [1, 3]}}, ["photos was {'a': [1, 2]} and is {'a': [1, 3]}"]),
        ({}, [f"{key} was removed" for key in sorted(EARLIER)]),
    ],
)
def test_differences_are_told_in_words(now, found):
    assert differences(EARLIER, now) == found


def test_what_is_free_may_differ():
    now = EARLIER | {"seed": 5, "workers": 2}
    assert differences(EARLIER, now, free={"seed", "workers"}) == []
    assert differences(now, EARLIER, free={"seed"}) == ["workers was removed"]


def test_long_values_are_cut():
    (found,) = differences({"key": "x" * 5000}, {"key": "y" * 5000})
    assert len(found) < 200


def test_the_error_names_the_first_three_and_the_remedy():
    now = {key: 9 for key in "abcde"}
    with pytest.raises(InputError) as refused:
        require_same("out/fold0", {}, now, "delete it to start again", hint="earlier run")
    text = "a was added; b was added; c was added and 2 more"
    assert (
        str(refused.value)
        == f"out/fold0: other settings or files ({text}); delete it to start again"
    )
    assert refused.value.hint == "earlier run"
    require_same("out/fold0", {}, now, "delete it", free=now)


def test_a_file_is_known_by_its_size_and_time_or_else_its_content(tmp_path):
    path = tmp_path / "a"
    assert identity(path) is None
    path.write_bytes(b"one")
    earlier, sha256 = (
        identity(path),
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    )
    assert earlier == [3, path.stat().st_mtime_ns]
    assert unchanged(path, earlier, "not looked at")
    os.utime(path, (1, 1))  # touched, or copied
    assert identity(path) != earlier
    assert unchanged(path, earlier, sha256) and not unchanged(path, earlier, "0" * 64)
    path.write_bytes(b"two")
    assert not unchanged(path, earlier, sha256)
    path.write_bytes(b"longer")
    assert not unchanged(path, earlier, sha256)
    path.unlink()
    assert not unchanged(path, earlier, sha256)
