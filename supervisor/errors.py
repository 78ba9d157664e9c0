"""What can go wrong in the supervisor, split by whose fault it is and whether to try again.

BreakerdError (of ipc)
└── SupervisorError
    ├── ConfigurationError    the administrator's: every mistake found, each with its path; do not retry
    ├── AlreadyRunning        nobody's: another supervisor serves this place; do not retry
    ├── ActorFailed           ours: one part failed too often; the level above starts it again
    └── BadRequest            the asker's: this cannot be answered as it was asked
        ├── BreakerNotFound       no breaker of that name, or more than one; ask with another
        ├── WorkerNotFound        no managed worker of that name; ask with another
        ├── CommandDenied         this user may not command; do not retry
        └── RequestRefused        not now or not this way; `code` says which
"""

from __future__ import annotations

from typing import Final

from ipc.errors import BreakerdError

CANDIDATES_SHOWN: Final = 8
"""Names that the text of an ambiguous one lists."""


class SupervisorError(BreakerdError):
    """The root of what the supervisor raises."""


class ConfigurationError(SupervisorError):
    """The configuration cannot be used; `errors` has one sentence per mistake, each with its path."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[tuple[str, ...]]]:
        """Pickle by the list, not by the joined text."""
        return ConfigurationError, (self.errors,)


class AlreadyRunning(SupervisorError):
    """Another supervisor serves this place; `pid` is its process, 0 = not known."""

    def __init__(self, pid: int, directory: str = "") -> None:
        who = f"process {pid}" if pid else "another process"
        where = f" of {directory}" if directory else ""
        super().__init__(f"breakerd is already running here: {who} holds the lock{where}")
        self.pid = pid
        self.directory = directory

    def __reduce__(self) -> tuple[type[AlreadyRunning], tuple[int, str]]:
        """Pickle by what it was made from, not by the text."""
        return AlreadyRunning, (self.pid, self.directory)


class ActorFailed(SupervisorError):
    """The actor `name` failed more often than it may; `text` says what it raised last."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name} failed too often: {text}")
        self.name = name
        self.text = text

    def __reduce__(self) -> tuple[type[ActorFailed], tuple[str, str]]:
        """Pickle by the two facts, not by the joined text."""
        return ActorFailed, (self.name, self.text)


class BadRequest(SupervisorError):
    """A request that cannot be answered as it was asked; the text says what is wrong."""

    @property
    def code(self) -> str:
        """The fixed short word of this refusal on the wire."""
        return "bad"


class BreakerNotFound(BadRequest, LookupError):
    """No breaker has this name, or more than one: `code` is "unknown" or "ambiguous"."""

    def __init__(self, name: str, candidates: tuple[str, ...] = (), command: str = "") -> None:
        if candidates:
            shown = [f"{command} {one}".strip() for one in candidates[:CANDIDATES_SHOWN]]
            more = f", and {len(candidates) - len(shown)} more" if len(candidates) > len(shown) else ""
            text = f"{name:.128} names more than one breaker: {', '.join(shown)}{more}"
        else:
            text = f"there is no breaker {name:.300}"
        super().__init__(text)
        self.name = name
        self.candidates = candidates
        self.command = command

    def of(self, command: str) -> BreakerNotFound:
        """The same, whose text has every command that may be meant in full."""
        return BreakerNotFound(self.name, self.candidates, command)

    @property
    def code(self) -> str:
        """The fixed short word of this refusal on the wire."""
        return "ambiguous" if self.candidates else "unknown"

    def __reduce__(self) -> tuple[type[BreakerNotFound], tuple[str, tuple[str, ...], str]]:
        """Pickle by the facts, not by the joined text."""
        return BreakerNotFound, (self.name, self.candidates, self.command)


class WorkerNotFound(BadRequest, LookupError):
    """No managed worker has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no managed worker {name}")
        self.name = name

    @property
    def code(self) -> str:
        """The fixed short word of this refusal on the wire."""
        return "unknown"

    def __reduce__(self) -> tuple[type[WorkerNotFound], tuple[str]]:
        """Pickle by the name, not by the text."""
        return WorkerNotFound, (self.name,)


class CommandDenied(BadRequest, PermissionError):
    """This user may not command."""

    @property
    def code(self) -> str:
        """The fixed short word of this refusal on the wire."""
        return "denied"


class RequestRefused(BadRequest):
    """This request cannot be carried out; `code` is a fixed short word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self._code = code

    @property
    def code(self) -> str:
        """The fixed short word of this refusal on the wire."""
        return self._code

    def __reduce__(self) -> tuple[type[RequestRefused], tuple[str, str]]:
        """Pickle by the two facts, not by the text."""
        return RequestRefused, (self._code, str(self))
