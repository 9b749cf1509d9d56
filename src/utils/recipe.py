"""Is this the same recipe? What a result depends on, kept beside it and compared before work goes
on.

A recipe is a dict that JSON can hold: settings, and the identity of each file. A resumed run and a
data folder being built must have the same one; a restored photo of another one is made again; a
pack refuses files whose identity and content have changed.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from src.utils.errors import InputError
from src.utils.files import file_hash

SHOWN = 3  # differences that an error names


def identity(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns of a file; None for one that cannot be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return None  # reading it will tell why
    return [facts.st_size, facts.st_mtime_ns]


def unchanged(path: Path, earlier: list[int], sha256: str) -> bool:
    """Whether a file still has its earlier `identity`, or at least its size and content."""
    now = identity(path)
    if now is None or now[0] != earlier[0]:
        return False
    return now[1] == earlier[1] or file_hash(path) == sha256


def differences(earlier: Mapping, now: Mapping, free: Iterable[str] = ()) -> list[str]:
    """What of a recipe is not as it was, in words; keys in `free` may differ, None is the same as
    no key."""
    found = []
    for key in sorted((earlier.keys() | now.keys()) - set(free)):
        was, is_now = earlier.get(key), now.get(key)
        if was == is_now:
            continue
        if key not in earlier or key not in now:
            found.append(f"{key} was {'removed' if key in earlier else 'added'}")
        elif isinstance(was, list):
            found.append(f"{key} was changed")  # the identity of a file says nothing to people
        else:
            found.append(f"{key} was {was!r:.80} and is {is_now!r:.80}")
    return found


def require_same(
    where: Path,
    earlier: Mapping,
    now: Mapping,
    remedy: str,
    free: Iterable[str] = (),
    hint: str | None = None,
) -> None:
    """Raise `InputError` that names `where` and the first differences, unless both recipes are the
    same.

    `remedy` ends the message; `free` as for `differences`, `hint` as for `InputError`.
    """
    found = differences(earlier, now, free)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        what = f"{'; '.join(found[:SHOWN])}{more}"
        raise InputError(f"{where}: other settings or files ({what}); {remedy}", hint)
