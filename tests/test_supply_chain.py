"""The requirements, the lock files, the table of licences and the running environment agree."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RUNTIME_LOCK, DEV_LOCK = (ROOT / "requirements" / name for name in ("runtime.lock", "dev.lock"))
HASHES = r"((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)"
PIN = re.compile(r"^(\S+)==(\S+)(?: ; (.+?))? \\$" + HASHES, re.MULTILINE)


def read_lock(path: Path) -> dict[str, tuple[str, str | None, str]]:
    """Version, marker and hashes of each package; fails on a line that is no pin with hashes."""
    text = path.read_text()
    pins = {name: rest for name, *rest in PIN.findall(text)}
    assert len(pins) == len(re.findall(r"^\w", text, re.M)), f"{path.name}: a pin without a hash"
    return pins


def pins_of(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


@pytest.mark.parametrize(
    ("requirements", "lock"),
    [("requirements.txt", RUNTIME_LOCK)]
    + [(f"requirements/{name}.txt", DEV_LOCK) for name in ("app", "heic", "ray", "dev")],
)
def test_requirements_are_locked_at_the_same_version(requirements, lock):
    locked = read_lock(lock)
    for pin in pins_of(requirements):
        version, *_ = locked[canonicalize_name(pin.name)]
        assert str(pin.specifier) == f"=={version}", f"{pin.name}: run make lock"


@pytest.mark.parametrize("lock", [RUNTIME_LOCK, DEV_LOCK], ids=lambda path: path.name)
def test_locks_hold_no_address_and_no_path(lock):
    """An index or a folder of one machine would be asked, or missed, on every other."""
    assert not re.search(r"://|@ |(?<![\w.])/|[A-Z]:\\|--(?!hash=)", lock.read_text())


def test_the_larger_lock_contains_the_smaller():
    """The same versions and files; a package may be wanted on more platforms."""
    smaller, larger = (
        {name: (version, hashes) for name, (version, _, hashes) in read_lock(path).items()}
        for path in (RUNTIME_LOCK, DEV_LOCK)
    )
    assert smaller.items() <= larger.items()


def test_the_locked_packages_are_installed_and_their_licences_listed():
    rows = (ROOT / "docs" / "packages.md").read_text().splitlines()[2:]
    listed = dict([cell.strip() for cell in row.split("|")[1:3]] for row in rows)
    listed = {canonicalize_name(name): version for name, version in listed.items()}
    for name, (version, marker, _) in read_lock(DEV_LOCK).items():
        if not marker or Marker(marker).evaluate():
            assert metadata.version(name) == version, "run make .venv/development"
            assert listed[name] == version, "run make licenses"
