"""Ten thousand mutated files, in parts that test processes share."""

import pytest

from tests.fuzz import KINDS, fuzz, make_seeds, summary

PARTS, MUTATIONS = 10, 1000  # of each part


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A real file of each kind."""
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    make_seeds(folder)
    return folder


@pytest.mark.parametrize("seed", range(1, PARTS + 1))
def test_real_readers_have_no_fault(seeds, tmp_path, seed):
    (tmp_path / "seeds").symlink_to(seeds)
    results = fuzz(KINDS, MUTATIONS, seed, tmp_path)
    faults = [
        f"{number} {result}" for number, result in enumerate(results) if result.outcome == "fault"
    ]
    assert len(results) == MUTATIONS and not faults, "\n".join([*faults, summary(results)])
    assert max(result.peak for result in results) < 4 << 30
