"""Errors that a user can cause and mend: each names the value, the place and the remedy.

Anything else that goes wrong is a defect of Inarch and keeps its traceback. The command line prints an `InarchError`
as one message and ends with its `exit_code`: 1 for failed, 2 for wrong usage.
"""

from __future__ import annotations


class InarchError(Exception):
    """Something a user can mend.

    `problem` says what was found and where, `remedy` what to do about it; both are whole sentences.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())

    def __reduce__(self) -> tuple[type[InarchError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class UsageError(InarchError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class TimeLimitError(UsageError):
    """A time limit that is too short for what must be there. least: seconds that would do, as estimated."""

    def __init__(self, problem: str, remedy: str = "", least: float = 0.0) -> None:
        self.least = least
        super().__init__(problem, remedy)


class DataError(InarchError):
    """A data set or an image that cannot be used."""


class SourceError(InarchError):
    """A source network, its weights or its card that cannot be used."""


class RunFolderError(InarchError):
    """A run folder that is in use, belongs to another study, or cannot be written."""


class TrainingError(InarchError):
    """A trial that cannot be trained, which a study records as failed to go on; or a device with too little memory,
    which ends the call."""


class MissingExtraError(InarchError):
    """A library that only an optional extra installs."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs a library that is not installed.", f"Install it with: pip install 'inarch[{extra}]'."
        )
        self.purpose, self.extra = purpose, extra

    def __reduce__(self) -> tuple[type[InarchError], tuple[str, str]]:
        return type(self), (self.purpose, self.extra)
