"""The lock files, the requirements, the table of licences and the running environment say the same."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import licenses
from tools.licenses import LOCK, PAGE, PLATFORM, ROOT, RUNTIME_LOCK, read_lock, versions

LOCKS = [RUNTIME_LOCK, LOCK]


def pins(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def table():
    page = PAGE.read_text()
    rows = page[page.index(licenses.BEGIN) : page.index(licenses.END)].splitlines()
    cells = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ")
    ]
    return cells[1:]


@pytest.mark.parametrize(
    ("requirements", "lock"),
    [
        ("requirements.txt", RUNTIME_LOCK),
        ("requirements.txt", LOCK),
        ("requirements/app.txt", LOCK),
        ("requirements/heic.txt", LOCK),
        ("requirements/ray.txt", LOCK),
        ("requirements/dev.txt", LOCK),
    ],
)
def test_requirements_are_locked_at_the_same_version(requirements, lock):
    locked = read_lock(lock)
    for pin in pins(requirements):
        name = canonicalize_name(pin.name)
        assert name in locked, f"{name} of {requirements} is not in {lock.name}; run make lock"
        assert pin.specifier == locked[name][0].specifier, f"{name}: run make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_exact_pins_with_hashes(lock):
    for name, (requirement, hashes) in read_lock(lock).items():
        assert re.fullmatch(r"==[\w.!+-]+", str(requirement.specifier)), name
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), name


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_no_address_and_no_path(lock):
    # An index or a folder of one machine would be asked, or missed, on every other.
    text = lock.read_text()
    assert not re.search(r"://|@ |(?<![\w.])/|[A-Z]:\\|--(?!hash=)", text)


def test_the_larger_lock_contains_the_smaller():
    """The same versions and files; a package may be wanted on more platforms."""
    smaller, larger = (
        {name: (pin.specifier, hashes) for name, (pin, hashes) in read_lock(path).items()}
        for path in LOCKS
    )
    assert {name: larger.get(name) for name in smaller} == smaller


def test_the_table_lists_exactly_the_locked_packages():
    assert {row[0]: row[1] for row in table()} == versions(LOCK, PLATFORM), "run make licenses"
    assert len(table()) == len({row[0] for row in table()})


def test_every_package_has_a_licence_and_a_home_page():
    for name, _, licence, part, url in table():
        assert licence and "UNKNOWN" not in licence, name
        assert part in ("use", "tests"), name
        assert url.startswith("http"), name


def test_licences_looked_up_by_hand_are_still_needed():
    names = {*licenses.LICENCES_BY_HAND, *licenses.HOME_PAGES_BY_HAND}
    assert names <= read_lock(LOCK).keys()


def test_the_running_environment_is_the_locked_one():
    expected = versions(LOCK)
    found = {}
    for name in expected:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    wrong = {
        name: (found[name], version) for name, version in expected.items() if found[name] != version
    }
    assert not wrong, f"installed and locked versions differ: {wrong}; run make .venv/development"


def test_a_package_that_is_locked_twice_is_refused(tmp_path):
    lock = tmp_path / "twice.lock"
    lock.write_text(
        "numpy==2.4.6 \\\n    --hash=sha256:00\nNumPy==2.4.5 \\\n    --hash=sha256:00\n"
    )
    with pytest.raises(ValueError, match="numpy is listed twice"):
        read_lock(lock)
