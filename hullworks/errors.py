"""Every error that HullWorks raises on purpose.

::

    HullWorksError
    ├── SettingsError            a setting is wrong, unknown or unreadable
    ├── InputError               what the user handed in cannot be used
    │   └── CandidateError       one row of a batch cannot be used
    ├── LevelError               a level of theory is unknown, ambiguous or mixed
    ├── PseudopotentialError     a pseudopotential is missing, unreadable or of another functional
    ├── MissingPartError         a real part (pw.x, mongod, ...) is not installed
    ├── ServiceError             a service of this project does not start, answer or stop
    │   ├── QueueAwayError       the batch system does not answer
    │   └── JobRejectedError     the batch system does not take a job
    ├── DatabaseError            the database refuses, is unreachable or of another schema version
    ├── StateError               a document is not in the state that a move needs
    ├── RunError                 a calculation ended without a usable result
    ├── LandingError             a finished run does not meet the rules for an entry
    └── HullError                a hull is asked for what it cannot answer

A message says *what* is wrong, *where*, and what to do *next*; the three parts stay available as attributes, so that
``--json`` can print them apart. All of them survive a pickle round trip.
"""

from __future__ import annotations


class HullWorksError(Exception):
    """Root of all HullWorks errors.

    Args:
        what: What is wrong, as a clause without a full stop.
        where: The file, row, setting or id concerned; empty when ``what`` already says so.
        next_step: What the user can do about it; empty when nothing can be done.
    """

    exit_code = 1
    """Exit status of the command line when this error ends it."""

    def __init__(self, what: str, where: str = "", next_step: str = "") -> None:
        super().__init__(what, where, next_step)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.next_step}" if self.next_step else text

    def as_dict(self) -> dict[str, str]:
        """Return the parts as a plain dictionary for JSON output."""
        return {"error": type(self).__name__, "what": self.what, "where": self.where, "next_step": self.next_step}


class SettingsError(HullWorksError, ValueError):
    """A setting is wrong, unknown or unreadable."""

    exit_code = 3


class InputError(HullWorksError, ValueError):
    """What the user handed in cannot be used."""

    exit_code = 2


class CandidateError(InputError):
    """One row of a batch cannot be used; the rest of the batch goes on."""


class LevelError(HullWorksError, ValueError):
    """A level of theory is unknown, ambiguous, or two levels would meet where they must not."""

    exit_code = 4


class PseudopotentialError(HullWorksError, ValueError):
    """A pseudopotential is missing, unreadable, of another element or of another functional."""

    exit_code = 4


class MissingPartError(HullWorksError, RuntimeError):
    """A real part (pw.x, mongod, ...) is not installed or does not run."""

    exit_code = 5


class ServiceError(HullWorksError, RuntimeError):
    """A service of this project does not start, answer or stop."""

    exit_code = 5


class QueueAwayError(ServiceError):
    """The batch system did not answer; whether it did what was asked is not known."""


class JobRejectedError(ServiceError):
    """The batch system does not take a job, for a reason that it names."""


class DatabaseError(HullWorksError, RuntimeError):
    """The database refuses, is unreachable, or is of another schema version."""

    exit_code = 6


class StateError(HullWorksError, RuntimeError):
    """A document is not in the state that a move needs; somebody else was faster, or the move is not allowed."""

    exit_code = 7


class RunError(HullWorksError, RuntimeError):
    """A calculation ended without a usable result."""

    exit_code = 8


class LandingError(HullWorksError, ValueError):
    """A finished run does not meet the rules for an entry."""

    exit_code = 8


class HullError(HullWorksError, ValueError):
    """A hull is asked for something that it cannot answer."""

    exit_code = 9
