"""Disks that are filled, and what a script says then."""

import shutil


def fill(disk, left):
    """Leave `left` bytes of a disk free; returns the file that takes the rest."""
    ballast = disk / "ballast"
    with open(ballast, "ab") as file:
        while (free := shutil.disk_usage(disk).free) > left:
            file.write(bytes(min(free - left, 1 << 20)))
            file.flush()
    return ballast


def refused(script, name, *arguments):
    """Run a script that meets the full disk; returns its message without the progress bars before
    it."""
    status, _, err = script(name, *arguments)
    assert status == 2 and "Traceback" not in err, err
    message = err[err.index("error:") :]
    assert message.endswith("\n") and message.count("\n") == 1
    assert "free" in message
    return message
