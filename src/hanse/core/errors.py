"""The one exception tree of Hanse.

Every error that a user can cause is a `HanseError`: one sentence that says where,
what arrived and what was wanted, and a `hint` that says what to do. The command line
prints both and exits with `exit_code`; it never shows a traceback for these.

    HanseError                     1
    ├── JobError                   2   the job file or an argument is wrong
    │   ├── SettingError               one setting: where it stands and what is allowed
    │   ├── JobProblems                several problems, reported together
    │   └── MissingExtraError          an optional dependency is not installed
    ├── DataError                  3   data is missing, malformed or does not fit the task
    │   ├── DataNotFoundError
    │   └── EmptyClientError
    ├── TaskError                  3   the model does not fit the data
    ├── PipelineError              2   parts that may not be combined
    ├── RunError                   4   the run could not go on
    │   ├── UpdateError                one client's update; costs that update, not the run
    │   │   ├── NonFiniteUpdateError
    │   │   ├── SpecMismatchError
    │   │   └── EncodingError          what a stage is to decode was never encoded by it
    │   ├── TooFewClientsError
    │   ├── SecureSumError             in a secure sum: whose message, in which phase
    │   │   ├── MessageRefusedError        one message; costs its sender, not the sum
    │   │   └── SumAbandonedError          too few are left; nothing was revealed
    │   └── WorkerLostError
    ├── StorageError               5   the run folder: not writable, full, damaged
    │   ├── RunNotFoundError
    │   ├── RunLockedError
    │   └── StorageFullError
    ├── FederationError            6   between a site, a user and the coordinator
    │   ├── UnreachableError           no connection, or it was cut and stayed so
    │   ├── RefusedError               the other side said no: identity, role, policy, limits
    │   └── ProtocolError              the other side speaks another version, or nonsense
    ├── PrivacyError               7   what a release costs in privacy is wrong, unknown or too much
    │   ├── UnknownEventError          a release that no accountant here can account for
    │   └── PrivacyBudgetError         a release would cost more than the budget has left
    └── RunInterrupted           130   stopped by the user; the run can be resumed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class HanseError(Exception):
    """Base of every error that Hanse raises on purpose.

    Args:
      message: What happened, where, what arrived and what was wanted.
      hint: What the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments are lost by Exception's own pickling, and errors cross process pools
        return (_rebuild, (type(self), self.message, self.hint), vars(self))


def _rebuild(kind: type[HanseError], message: str, hint: str | None) -> HanseError:
    error = kind.__new__(kind)
    HanseError.__init__(error, message, hint=hint)
    return error


class JobError(HanseError):
    """The job file, or an argument on the command line, can't be used."""

    exit_code = 2


class SettingError(JobError):
    """One setting is wrong.

    Args:
      where: Dotted path of the setting, for example ``strategy.mu``.
      problem: What is wrong with it, as a clause.
      hint: What would be right.
    """

    def __init__(self, where: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}" if where else problem, hint=hint)
        self.where = where
        self.problem = problem


class JobProblems(JobError):
    """All the problems of a job, found in one pass."""

    def __init__(self, problems: Iterable[HanseError], *, source: str = "the job") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source} has {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n\n".join([head, *(str(problem) for problem in self.problems)]))


class MissingExtraError(JobError):
    """Something needs a package that the base installation leaves out."""

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(
            f"{what} needs a package that is not installed",
            hint=f'install it with: pip install "hanse[{extra}]"',
        )
        self.extra = extra


class DataError(HanseError):
    """Data is malformed or does not fit what the job asks of it."""

    exit_code = 3


class DataNotFoundError(DataError):
    """A file or a data set is not where it was looked for."""


class EmptyClientError(DataError):
    """A client holds no examples where at least one is needed."""


class TaskError(HanseError):
    """The model, the loss and the data do not fit together."""

    exit_code = 3


class PipelineError(HanseError):
    """Two parts were combined that may not be."""

    exit_code = 2


class RunError(HanseError):
    """The run could not go on."""

    exit_code = 4


class UpdateError(RunError):
    """One client's update is unusable; it is dropped and the round goes on."""


class NonFiniteUpdateError(UpdateError):
    """An update holds NaN or an infinity."""


class SpecMismatchError(UpdateError):
    """Two vectors, or a vector and a spec, describe different tensors."""


class EncodingError(UpdateError):
    """An update is not what the pipeline's stages make of one: cut short, out of range, of another layout."""


class TooFewClientsError(RunError):
    """Fewer clients answered than `min_clients` asks for."""


class SecureSumError(RunError):
    """Something went wrong in a secure sum.

    Args:
      message: As for every `HanseError`.
      client: Whose message or share it was; ``server`` for the server's; empty where nobody is to blame.
      phase: In which phase of the protocol.
      hint: As for every `HanseError`.
    """

    def __init__(self, message: str, *, client: str = "", phase: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.client = client
        self.phase = phase


class MessageRefusedError(SecureSumError):
    """A message of a secure sum is malformed, repeated, out of turn, forged or asks too much; it changed nothing."""


class SumAbandonedError(SecureSumError):
    """Too few clients are left for a secure sum, or a share is wrong and can't be replaced; nothing was revealed."""


class WorkerLostError(RunError):
    """A worker process died, was replaced, and died again on the same client."""


class StorageError(HanseError):
    """The run folder can't be read or written."""

    exit_code = 5


class RunNotFoundError(StorageError):
    """No run of that name or path."""


class RunLockedError(StorageError):
    """Another process is working on this run."""


class StorageFullError(StorageError):
    """The disk is full; what was committed is safe."""


class FederationError(HanseError):
    """Something between a site, a user and the coordinator."""

    exit_code = 6


class UnreachableError(FederationError):
    """The other side can't be reached, or the connection was cut and stayed so."""


class RefusedError(FederationError):
    """The other side said no: who asks, what they may, or how much.

    Args:
      message: As for every `HanseError`.
      hint: As for every `HanseError`.
      code: One word for programs where they act on the reason, such as ``epoch``; `protocol.Problem` carries it.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ProtocolError(FederationError):
    """The other side speaks another version of the protocol, or nonsense."""


class PrivacyError(HanseError):
    """A privacy parameter, event, budget or ledger can't be used as it is."""

    exit_code = 7


class UnknownEventError(PrivacyError):
    """A release that can't be accounted for; its cost is never guessed."""


class PrivacyBudgetError(PrivacyError):
    """A release would cost more privacy than the budget has left; it did not happen."""


class RunInterrupted(HanseError):
    """The user stopped the run; it can be resumed."""

    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest in spelling to `word`, if one is close.

    >>> nearest("learning_rte", ["learning_rate", "momentum"])
    'learning_rate'
    """
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known one, and the list of all.

    >>> did_you_mean("fedporx", ["fedavg", "fedprox"])
    'did you mean `fedprox`? Known: fedavg, fedprox'
    """
    names = sorted(known)
    guess = nearest(word, names)
    listing = f"known: {', '.join(names)}" if names else "nothing is known here"
    return f"did you mean `{guess}`? {listing[0].upper()}{listing[1:]}" if guess else listing
