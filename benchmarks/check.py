"""Is the working tree slower than a commit? Both are timed on this machine, each by its own code."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from benchmarks.machine import describe_machine
from benchmarks.settings import SlowdownCheck
from src.datasets.bank import pack
from src.datasets.build import build, sample_photos
from src.utils.errors import InputError, SettingError

ROOT = Path(__file__).parents[1]
TIMINGS = "benchmarks.timings"  # the module that a tree times itself with
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CONFIRMATIONS = 2  # pairs of processes that time again what looks slower
TOLERANCE = 0.15  # unchanged code came out 0.07 slower at most, on two cores with work for six
TOLERANCES = {"score of an image": 0.1, "damage synthesis": 0.1}  # and these 0.01 at most

Timings = dict[str, float]  # CPU seconds by the names of `benchmarks.timings.MEASUREMENTS`


def git(repository: Path, *arguments: str) -> str:
    """What a git command prints; raises `InputError` with git's reason when it fails."""
    # in a hook git's variables name the repository, whatever the folder
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
    except FileNotFoundError:
        raise InputError(
            "git: not installed, but the working tree is compared with a commit"
        ) from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[:200]
        raise InputError(f"{repository}: git {arguments[0]} failed ({reason})")
    return done.stdout.strip()


def find_commit(repository: Path, revision: str) -> str:
    """The hash of a commit that can time itself.

    Raises `InputError` where there is no git checkout, and `SettingError` for an unknown revision
    or one from before `benchmarks/timings.py`.
    """
    try:
        top = git(repository, "rev-parse", "--show-toplevel")
    except InputError as error:
        raise InputError(
            f"{repository}: no git checkout, so there is no commit to compare with"
        ) from error
    if (
        Path(top).resolve() != Path(repository).resolve()
    ):  # some other project's, which holds this folder
        raise InputError(f"{repository}: no git checkout of its own, but a folder of {top}")
    try:
        commit = git(
            repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"
        )
    except InputError:
        raise SettingError("against", revision, f"no commit of {repository}") from None
    file = f"{TIMINGS.replace('.', '/')}.py"
    if not git(repository, "ls-tree", "--name-only", commit, "--", file):
        raise SettingError(
            "against", revision, f"has no {file} to time itself with; choose a later commit"
        )
    return commit


@contextmanager
def checked_out(repository: Path, commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        try:
            git(repository, "worktree", "add", "--detach", str(tree), commit)
            yield tree
        finally:
            if tree.exists():
                git(repository, "worktree", "remove", "--force", str(tree))


def time_tree(tree: Path, data_dir: Path, names: Sequence[str] = ()) -> Timings:
    """Timings of a tree by its own code in a process of its own: all, or those of some names.

    Raises `InputError` when the process fails.
    """
    command = [sys.executable, "-m", TIMINGS, str(data_dir), *names]
    done = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, env=os.environ | ONE_THREAD
    )
    try:
        if done.returncode:
            raise ValueError(f"exit status {done.returncode}")
        return {name: float(seconds) for name, seconds in json.loads(done.stdout).items()}
    except (ValueError, AttributeError, TypeError) as error:
        print(done.stderr, file=sys.stderr)
        raise InputError(f"{tree}: {TIMINGS} failed ({error}), see above") from None


def least(rounds: Sequence[Timings]) -> Timings:
    """The least of each timing over several rounds; some rounds may lack some names."""
    names = dict.fromkeys(name for found in rounds for name in found)
    return {name: min(found[name] for found in rounds if name in found) for name in names}


def slower(
    old: Timings, new: Timings, tolerances: Mapping[str, float], default: float
) -> list[str]:
    """Names of what takes longer than before by more than its tolerance (a share), or `default`."""
    shared = [name for name in old if name in new]
    return [
        name for name in shared if not new[name] <= old[name] * (1 + tolerances.get(name, default))
    ]


def compare_trees(
    old_tree: Path,
    new_tree: Path,
    data_dir: Path,
    rounds: int,
    tolerances: Mapping[str, float] = TOLERANCES,
    default: float = TOLERANCE,
) -> tuple[Timings, Timings, list[str]]:
    """The least timings of both trees, whose processes take turns, and the names that became
    slower.

    What looks slower is timed again, by itself, before it counts. Arguments as for `slower`.
    """
    old, new = [], []
    for _ in tqdm(range(rounds), "timing both", unit="pair", dynamic_ncols=True):
        old.append(time_tree(old_tree, data_dir))
        new.append(time_tree(new_tree, data_dir))
    for _ in range(CONFIRMATIONS):
        suspects = slower(least(old), least(new), tolerances, default)
        if suspects:
            print(f"timed again: {', '.join(suspects)}", flush=True)
            old.append(time_tree(old_tree, data_dir, suspects))
            new.append(time_tree(new_tree, data_dir, suspects))
    return least(old), least(new), slower(least(old), least(new), tolerances, default)


def table(old: Timings, new: Timings, worse: Sequence[str]) -> str:
    """Milliseconds before and now, and their ratio, a line for each name."""
    lines = [f"{'CPU ms, one thread':42}{'before':>10}{'now':>10}{'ratio':>8}"]
    for name in old | new:
        before, now = (f"{1000 * side[name]:.2f}" if name in side else "-" for side in (old, new))
        ratio = f"{new[name] / old[name]:.2f}" if name in old and name in new else "-"
        lines.append(
            f"{name:42}{before:>10}{now:>10}{ratio:>8}{'  SLOWER' if name in worse else ''}"
        )
    return "\n".join(lines)


def run(settings: SlowdownCheck) -> int:
    """Print the timings of both; 1 if the working tree is slower in any, 0 otherwise."""
    if settings.rounds < 1:
        raise SettingError("rounds", settings.rounds, "must be at least 1")
    commit = find_commit(ROOT, settings.against)
    print(describe_machine())
    photos = sample_photos()
    with tempfile.TemporaryDirectory() as folder, checked_out(ROOT, commit) as old_tree:
        data_dir = Path(folder, "data")
        build(photos, photos[0].parent, data_dir, crops_per_photo=1, test_photos=0.1, seed=0)
        pack(data_dir)
        if settings.tolerance is None:
            old, new, worse = compare_trees(old_tree, ROOT, data_dir, settings.rounds)
        else:
            old, new, worse = compare_trees(
                old_tree, ROOT, data_dir, settings.rounds, {}, settings.tolerance
            )
    print(table(old, new, worse))
    found = f"slower than {settings.against}: {', '.join(worse)}" if worse else "nothing is slower"
    print(f"{settings.against} is {commit[:12]}; {found}")
    return 1 if worse else 0
