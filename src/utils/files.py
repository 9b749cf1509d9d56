"""Safe reading and writing, one process per folder, and resuming by recipe."""

import errno
import hashlib
import json
import os
import stat
import sys
import unicodedata
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.utils.errors import InputError

LOCK = ".lock"  # in a folder that a process works in
PARTIAL = ".photo-restoration-"  # prefix of files that `write_bytes` has not finished
# what network disks and containers answer that cannot lock files
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EIO, errno.EINVAL}


def require_file(path: Path) -> None:
    """Raise `InputError` for a folder, pipe or device; `FileNotFoundError` if nothing is there."""
    # opening a pipe would block, and a device such as /dev/zero never ends
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"{path}: not a regular file; put a file in its place")


def read_text(path: Path, remedy: str) -> str:
    """A UTF-8 text file without a byte order mark; `remedy` ends the error if it is not one."""
    require_file(path)
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); {remedy}") from None


def read_json(path: Path, remedy: str) -> dict:
    """The object in a JSON file; `remedy` ends the error if it is not one."""
    try:
        value = json.loads(read_text(path, remedy))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected an object; {remedy}")
    return value


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Work in a folder alone; it is created if missing, `InputError` if another process has it.

    The lock file is hidden and stays, but is only held while the process lives. Half-written files
    that a killed process left are removed, except below folders that have their own locks.
    On a disk that cannot lock files, a warning is given instead, and nothing is removed.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "wait for it to finish, or stop it"
        raise InputError(f"{folder}: another process is working there; {remedy}") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        found = f"{folder / LOCK}: this disk cannot lock files ({error.strerror})"
        print(f"warning: {found}; let no other process work in this folder", file=sys.stderr)
    try:
        if lock.is_locked:
            _remove_partial(folder)
        yield
    finally:
        lock.release()


def _remove_partial(folder: Path) -> None:
    for base, folders, names in os.walk(folder):  # does not follow links
        folders[:] = [name for name in folders if not Path(base, name, LOCK).exists()]
        for name in names:
            path = Path(base, name)
            if name.startswith(PARTIAL) and path.is_file() and not path.is_symlink():
                path.unlink()


def write_bytes(path: Path, data: bytes | memoryview, durable: bool = False) -> None:
    """Write a file that replaces `path` once it is complete; on any error nothing is left.

    `durable` waits until it is on the disk, so that a power cut cannot leave an empty file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text to a file."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        error.filename = str(path)  # the error of a failed write does not name the file
        raise


def write_json(path: Path, value: object) -> None:
    """`write_bytes` for indented JSON."""
    # ASCII: a file name that is not UTF-8 cannot be encoded, only escaped
    write_text(path, json.dumps(value, indent=2) + "\n")


def name_key(path: Path | str) -> str:
    """A key that is equal for names that some file systems treat as one."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_or_none(path: Path | None) -> str | None:
    """`file_hash`, or None for no file, or one that cannot be read: reading it reports why."""
    try:
        return file_hash(path) if path else None
    except OSError:
        return None


def identity(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns of a file, for a recipe; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # reading the file will report the reason
    return [status.st_size, status.st_mtime_ns]


def begin(
    folder: Path,
    recipe: dict,
    may_change: Collection[str] = (),
    name: str = "recipe.json",
    remedy: str = "delete it to start again, or choose another folder",
    hint: str | None = None,
) -> bool:
    """Write a recipe into a folder, or check that earlier work there had the same one.

    A recipe, a dict for JSON, holds everything that the results depend on: settings, and hashes or
    the `identity` of files, with relative paths, so that folders may be moved. Resumed work may
    change the top-level keys `may_change`. A result is done if its file exists.

    Returns whether earlier work is resumed. A different one is an `InputError`, before any change.
    """
    path = Path(folder) / name
    recipe = json.loads(json.dumps(recipe))
    earlier = read_recipe(folder, name, remedy)
    fixed = [{key: one[key] for key in one if key not in may_change} for one in (earlier, recipe)]
    changes = differences(*fixed)
    if earlier and changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        found = f"{'; '.join(changes[:3])}{more}"
        raise InputError(f"{path}: begun with another recipe ({found}); {remedy}", hint)
    if earlier != recipe:
        write_json(path, recipe)
    return bool(earlier)


def read_recipe(
    folder: Path, name: str = "recipe.json", remedy: str = "delete it to start again"
) -> dict:
    """The recipe that `begin` wrote into a folder, or {} if there is none."""
    try:
        return read_json(Path(folder) / name, remedy)
    except FileNotFoundError:
        return {}


def differences(earlier: dict, now: dict) -> list[str]:
    """A phrase per entry that differs between two recipes; a missing key counts as None."""
    changes = []
    for key in sorted(earlier.keys() | now.keys()):
        before, after = earlier.get(key), now.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changes += [f"{key}/{change}" for change in differences(before, after)]
        elif before is None:
            changes.append(f"{key} was added")
        elif after is None:
            changes.append(f"{key} was removed")
        elif isinstance(before, list) or len(str(before)) > 60:  # a hash tells nobody anything
            changes.append(f"{key} was changed")
        else:
            changes.append(f"{key} was {before!r:.80} and is {after!r:.80}")
    return changes
