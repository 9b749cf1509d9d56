"""Errors that the user can fix, and a warning that nobody needs."""

# PIL warns at half the pixels that it refuses; `src.utils.images` has a limit of its own.
LARGE_IMAGE = "Image size .* could be decompression bomb"


class InputError(Exception):
    """Something the user can fix: the message names the file, what was found and what was expected.

    Args:
        message: one line without any command.
        hint: the kind of problem, if a command is the remedy; scripts add it from
            `src.utils.cli.HINTS`.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


class SettingError(InputError):
    """A setting with an impossible value.

    Args:
        setting: name of the field or argument, such as color_size; scripts show it as a flag.
        value: as it was given.
        reason: what is wrong with it, and what is possible.
    """

    def __init__(self, setting: str, value: object, reason: str):
        super().__init__(f"{setting} {value}: {reason}")
        self.setting, self.value, self.reason = setting, value, reason

    def __reduce__(self) -> tuple:  # errors of other processes arrive pickled
        return type(self), (self.setting, self.value, self.reason)


class Stopped(Exception):
    """A signal ended the work after everything was saved.

    Args:
        message: what was saved, and where.
        number: the signal's.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
