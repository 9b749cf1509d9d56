"""Errors that the user can fix, and a warning that nobody needs."""

# PIL warns at half its limit; `src.utils.images` has a limit of its own.
LARGE_IMAGE = "Image size .* could be decompression bomb"


class InputError(Exception):
    """Something the user can fix: one line names the file, what was found and what was expected.

    Scripts append the command that fixes it, `src.utils.cli.HINTS[hint]`.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


class SettingError(InputError):
    """A setting, such as image_size, with an impossible value; the reason says what is possible."""

    def __init__(self, setting: str, value: object, reason: str):
        super().__init__(f"{setting} {value}: {reason}")
        self.setting, self.value, self.reason = setting, value, reason

    def __reduce__(self) -> tuple:  # errors of other processes arrive pickled
        return type(self), (self.setting, self.value, self.reason)


class Stopped(Exception):
    """The signal `number` ended the work; everything was saved."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
