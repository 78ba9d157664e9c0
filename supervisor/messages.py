"""What the engine is told: frozen messages, each of which goes into the journal before its effects leave.

A message is plain values only (text, numbers, None, tuples), so that it can be written as JSON and read
back to an equal one: replaying the journal through the engine gives the same state again.
Neighbours: `intake` and `control_server` make them, `engine` handles them, `journal` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker process was given a segment; sent before the hello is answered."""

    worker: str
    """The nonce of the attachment, 32 hex digits: the only identity."""
    pid: int
    """For display only."""
    inode: int
    """Inode of its pidfd, unique per process from Linux 6.9 on; 0 = not known."""
    uid: int
    user: str
    name: str
    namespace: str
    software: str


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """The process is dead and its ring was drained for the last time (or is lost with its segment)."""

    worker: str
    segment_lost: bool = False


@dataclass(frozen=True, slots=True)
class WorkerForgotten:
    """The nursery has dropped the descriptors of a dead worker: its tomb may go."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerQuarantined:
    """The segment of this worker is not read any more; `reason` is a sentence."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerDeclared:
    """A worker said which row of its segment is which breaker."""

    worker: str
    row: int
    name: str
    """Without the namespace, which is the worker's."""
    settings: str
    """JSON of BreakerSettings.to_json(), as the worker sent it: not yet checked."""


@dataclass(frozen=True, slots=True)
class ClassDeclared:
    """A worker said which row of its segment counts one exception class of one of its breakers."""

    worker: str
    row: int
    breaker_row: int
    name: str
    """The exception's class name, or vocabulary.OTHER_CLASS."""


@dataclass(frozen=True, slots=True)
class CounterDeclared:
    """A worker said which row of its segment counts one kind of error in one operation."""

    worker: str
    row: int
    kind: str
    operation: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What one drain took from one segment. Everything is new since the last drain but the tallies."""

    worker: str
    position: int
    """Next unread slot: what ring.Reader.position stands at after this drain."""
    epoch: int
    holes: tuple[tuple[int, int], ...]
    declared: int
    """Bytes of the declarations that were read."""
    gaps: int
    invalid: int
    counts: tuple[tuple[int, int, int, int], ...]
    """(row, OutcomeKind, 1 if local else 0, count): every outcome of this drain, judged or not."""
    durations: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    """(row, ((bucket of metrics.duration_bucket, count), ...))."""
    tallies: tuple[tuple[int, int, int], ...]
    """(row, index into the row's 16 words, absolute value) of the cumulative words that changed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """`count` equal outcomes of one worker and row, to be judged; ordered by `end` within a batch."""

    worker: str
    row: int
    kind: int
    generation: int
    """The generation code of the word, 1 to 15; local outcomes (0) are never judged."""
    permit: int
    """The low six bits of the trial's permit; -1 = no trial."""
    end: float
    """Seconds of CLOCK_MONOTONIC; for count > 1 all lie in the same eighth of a second."""
    count: int


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """One drain over all segments."""

    taken: tuple[Taken, ...]
    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class PermitAsked:
    """A worker wants to run a trial; the same `ask` again gets the same permit again."""

    worker: str
    row: int
    ask: int


@dataclass(frozen=True, slots=True)
class PermitReturned:
    """The answer to a PermitAsked could not be delivered: nobody holds this permit."""

    worker: str
    row: int
    permit: int


@dataclass(frozen=True, slots=True)
class Command:
    """An authorised person or program tells a breaker what to do."""

    breaker: str
    """The full name, `namespace/name`."""
    verb: str
    for_s: float | None
    """How long a manual state lasts; None = until it is changed."""
    reason: str
    uid: int
    user: str


@dataclass(frozen=True, slots=True)
class Configured:
    """The configuration file's breakers: ((name or namespace/name, settings JSON, critical), ...)."""

    breakers: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """A new daemon took over; `lost` names what could not be read back, in sentences."""

    incarnation: int
    boot: int
    lost: tuple[str, ...] = ()
    uid: int = -1
    """The supervisor's own user; -1 = an older supervisor, which did not say."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ProbeRule:
    """What the verdicts of one `[breakers.NAME.probe]` mean for the breakers of that table."""

    table: str
    """The name of the table, `name` or `namespace/name`."""
    rise: int
    """Passes in a row, begun after the opening, that end the open time."""
    fall: int
    """Failures in a row that open a CLOSED breaker where `preventive` is set."""
    preventive: bool
    patience_s: float
    """For how long after a verdict that holds a breaker OPEN the next one is awaited."""
    digest: str = ""
    """A short word that changes whenever the table of the probe does: whose verdicts are whose."""


@dataclass(frozen=True, slots=True)
class ProbesConfigured:
    """The configuration file's probes, all of them; said right after Configured."""

    probes: tuple[ProbeRule, ...]


@dataclass(frozen=True, slots=True)
class ProbeEnded:
    """A probe was asked and this came back; one that is not configured any more decides nothing."""

    table: str
    verdict: str
    """passed, failed, or error: it could not be asked at all, which says nothing of the dependency."""
    text: str
    """What came back, a sentence without secrets."""
    took_s: float
    started: float
    """When it was asked, s of CLOCK_MONOTONIC."""
    digest: str = ""
    """Of the ProbeRule by which it was asked."""
    awaited_s: float = 0.0
    """Within so many seconds the next one ought to have come; 0.0 = within the patience of the rule."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration file was read again on request; said last of what makes it be in force."""

    uid: int
    """Who asked for it; -1 = a signal."""
    user: str
    changed: str
    """What is different now, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something happened beside breakers and workers that is to be remembered: it becomes an event."""

    kind: str
    """One of `chronicle.KINDS`: managed, denied, refused, supervisor."""
    text: str
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values for programs."""
    breaker: str = ""
    """Full name, if it is about one."""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """An authorised person or program wants a breaker without workers to be forgotten, or all of them."""

    breaker: str
    """The full name; empty = every one that no worker has and nobody set by hand."""
    uid: int
    user: str


Message = (
    WorkerJoined
    | WorkerLeft
    | WorkerForgotten
    | WorkerQuarantined
    | BreakerDeclared
    | ClassDeclared
    | OutcomeBatch
    | PermitAsked
    | PermitReturned
    | Command
    | Configured
    | DaemonStarted
    | Tick
    | CounterDeclared
    | ProbesConfigured
    | ProbeEnded
    | Reloaded
    | Noted
    | Forget
)

_KINDS: Final[tuple[type[Any], ...]] = (
    WorkerJoined,
    WorkerLeft,
    WorkerForgotten,
    WorkerQuarantined,
    BreakerDeclared,
    ClassDeclared,
    OutcomeBatch,
    PermitAsked,
    PermitReturned,
    Command,
    Configured,
    DaemonStarted,
    Tick,
    CounterDeclared,
    ProbesConfigured,
    ProbeEnded,
    Reloaded,
    Noted,
    Forget,
)
"""The journal writes a message by its place here: append only, never reorder."""

_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_LEAST: Final[dict[type[Any], int]] = {DaemonStarted: 3}
"""How many fields a kind had at first, where it got more since."""
_PARTS: Final[dict[str, type[Any]]] = {"taken": Taken, "judged": Judged, "probes": ProbeRule}


def to_plain(message: Message) -> list[Any]:
    """The message as JSON values: [number of its kind, field, field, ...]."""
    plain: list[Any] = [_NUMBERS[type(message)]]
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name in _PARTS:
            names = [part.name for part in fields(_PARTS[field.name])]
            value = [[getattr(item, name) for name in names] for item in value]
        plain.append(value)
    return plain


def from_plain(plain: list[Any]) -> Message:
    """The message that `to_plain` wrote, also of before its last fields were there.

    Raises IndexError, TypeError or ValueError on what it never wrote.
    """
    kind = _KINDS[plain[0]]
    values = []
    known = fields(kind)
    if kind in _LEAST:
        known = known[: max(len(plain) - 1, _LEAST[kind])]
    for field, value in zip(known, plain[1:], strict=True):
        if field.name in _PARTS:
            part = _PARTS[field.name]
            values.append(tuple(part(*map(_frozen, item)) for item in value))
        else:
            values.append(_frozen(value))
    message: Message = kind(*values)
    return message


def _frozen(value: Any) -> Any:
    """Lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# --- what the engine answers with -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Store this board word in that row of that worker's segment."""

    worker: str
    row: int
    word: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to the message being handled: plain JSON values."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The reply to the message being handled: no. `code` is a fixed short word, `text` a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event for the log and for whoever listens."""

    number: int
    """Counts up from 1 for the whole life of the journal."""
    kind: str
    """One of `chronicle.KINDS`."""
    text: str
    breaker: str = ""
    worker: str = ""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Retire:
    """The worker's counts are folded and its record is a tomb: the nursery may drop its descriptors."""

    worker: str


Effect = Publish | Answer | Refused | Happened | Retire
