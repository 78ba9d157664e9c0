"""Every breaker of this host by its names: the settings in force, and the probe that speaks for it.

`[breakers."shop/database"]` of the configuration file comes before `[breakers.database]`, and either
before what workers declare. Neighbours: `engine` (the only writer), `host_breaker`, `probe_watch` (what a
probe's words mean), `views` (resolves names that people type). Knows no worker's record and no outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, ValuesView
from typing import Any, Final

from ipc.breaker import Breaker
from ipc.circuit import NEVER
from ipc.errors import SettingsError
from ipc.vocabulary import BreakerSettings, BreakerState
from supervisor.errors import BreakerNotFound
from supervisor.host_breaker import HostBreaker, read_settings
from supervisor.idle import Idle
from supervisor.messages import Configured, ProbeEnded, ProbesConfigured
from supervisor.metrics import BreakerMetrics
from supervisor.probe_watch import ERROR, ProbeWatch, Probing
from supervisor.turn import Turn

BREAKERS_MAX: Final = 4096
"""Breakers of a host; beyond it a declaration is refused and told, and its process decides about it alone."""
BREAKERS_EACH: Final = BREAKERS_MAX // 4
"""Of these, breakers of one user, and of one namespace; root and the supervisor's own user have no share."""
BREAKERS_KEPT: Final = BREAKERS_MAX // 16
"""Of these, breakers that only root and the supervisor's own user can have."""
FORGET_S: Final = 86_400.0
"""A breaker that no worker has had for so long is forgotten."""
NO_SETTINGS: Final = frozenset({"", "null", "{}"})
"""What the configuration says of a breaker that it mentions without deciding its settings."""


class Catalogue:
    """The breakers by number and by full name, and the configuration file's word on them."""

    def __init__(self) -> None:
        self.by_number: dict[int, HostBreaker] = {}
        """In the order of their first declaration. No number is given twice, whatever was forgotten."""
        self.following = 0
        """The number of the next breaker."""
        self.own = -1
        """The supervisor's own user; -1 = not known."""
        self.idle = Idle[int]()
        """Numbers of the breakers without workers."""
        self.forgotten = BreakerMetrics()
        """What was counted of breakers that are forgotten."""
        self.forgotten_count = 0
        self.full_at: float | None = None
        """When a breaker was last refused for want of room (s of CLOCK_MONOTONIC)."""
        self.full = ""
        """Why, a sentence without its end."""
        self.spaces: dict[str, dict[int, HostBreaker]] = {}
        """The breakers of each namespace by number."""
        self.owned: Counter[int] = Counter()
        """How many breakers each user made."""
        self.named: dict[str, HostBreaker] = {}
        self.configured: dict[str, tuple[BreakerSettings | None, bool]] = {}
        """By full or short name: settings (None = the file gives none), and whether it is critical."""
        self.watches: dict[str, ProbeWatch] = {}
        """By full or short name: the probe that the file gives to that table."""
        self._probed: dict[str, list[HostBreaker]] = {}
        """By the same names: the breakers that this probe speaks for; it follows from the rest."""

    @property
    def numbered(self) -> ValuesView[HostBreaker]:
        """Every breaker, in the order of their first declaration."""
        return self.by_number.values()

    def resolve(self, name: str) -> str:
        """The full name of what a person typed, full or short. Raises BreakerNotFound.

        Of several breakers that a short name may mean it is the only one that has workers.
        """
        if name in self.named:
            return name
        candidates = sorted(full for full, found in self.named.items() if found.short == name)
        if len(candidates) > 1:
            busy = [full for full in candidates if self.named[full].shown]
            candidates = busy if len(busy) == 1 else candidates
        if len(candidates) != 1:
            raise BreakerNotFound(name, tuple(candidates))
        return candidates[0]

    def owner_of(self, namespace: str) -> int | None:
        """The user who used this namespace first, of whom breakers are known; None = nobody."""
        known = self.spaces.get(namespace)
        owner = next(iter(known.values())).owner if known else -1
        return None if owner < 0 else owner

    def find_or_make(
        self, namespace: str, short: str, first: BreakerSettings, owner: int, turn: Turn
    ) -> HostBreaker | None:
        """The breaker of this name, made with the settings in force if it is new; None = there is no room."""
        found = self.named.get(f"{namespace}/{short}")
        if found is not None:
            return found
        if not self._make_room(namespace, owner, turn):
            return None
        settings, critical = self._said(namespace, short)
        made = HostBreaker(
            self.following,
            namespace,
            short,
            Breaker(settings if settings is not None else first, turn.now),
            configured=settings,
            critical=critical,
            owner=owner,
        )
        self._add(made)
        self.idle.rest(made.number, owner, turn.now)
        self._assign(made)
        self._gate(made, turn.now)
        return made

    def _add(self, breaker: HostBreaker) -> None:
        self.following = max(self.following, breaker.number + 1)
        self.by_number[breaker.number] = breaker
        self.named[breaker.name] = breaker
        self.spaces.setdefault(breaker.namespace, {})[breaker.number] = breaker
        self.owned[breaker.owner] += 1

    # --- room -------------------------------------------------------------------------------------

    def _make_room(self, namespace: str, owner: int, turn: Turn) -> bool:
        """Whether there is room for one more breaker of this user in this namespace.

        Where there is none, the breaker goes that nobody has used for longest: of this user, of this
        namespace, of the host.
        """
        privileged = owner in (0, self.own)
        most = BREAKERS_MAX if privileged else BREAKERS_MAX - BREAKERS_KEPT
        if not privileged and self.owned[owner] >= BREAKERS_EACH:
            text = f"uid {owner} has {BREAKERS_EACH} breakers, which is the limit of one user"
            if not self._forget_one(self.idle.of(owner), turn):
                return self._no_room(text, turn)
        space = self.spaces.get(namespace, {})
        if not privileged and len(space) >= BREAKERS_EACH:
            text = f"namespace {namespace} has {BREAKERS_EACH} breakers, which is the limit of one namespace"
            if not self._forget_one(self._idle_of(space), turn):
                return self._no_room(text, turn)
        if len(self.by_number) >= most and not self._forget_one(self.idle.oldest(), turn):
            return self._no_room(f"{most} breakers exist, which is the limit", turn)
        return True

    def _no_room(self, text: str, turn: Turn) -> bool:
        self.full_at, self.full = turn.now, text
        return False

    def _idle_of(self, space: dict[int, HostBreaker]) -> list[int]:
        """The numbers of those without workers, longest unused first."""
        return sorted((number for number in space if number in self.idle), key=self.idle.since)

    def _forget_one(self, candidates: Iterable[int], turn: Turn) -> bool:
        """Forget the first of these that may go; whether one did. Nobody waits for a closed one."""
        for number in candidates:
            breaker = self.by_number[number]
            if self.dispensable(breaker) and breaker.state is BreakerState.CLOSED:
                self.forget(breaker, turn)
                return True
        return False

    def dispensable(self, breaker: HostBreaker) -> bool:
        """Whether nobody has a hand in it: no worker, no operator, no table of the configuration."""
        tabled = breaker.name in self.configured or breaker.short in self.configured
        return not breaker.shown and breaker.breaker.manual is None and not tabled

    def forget(self, breaker: HostBreaker, turn: Turn) -> None:
        """Drop a breaker that no worker has; its counts stay in the totals."""
        self.forgotten.add(breaker.metrics)
        self.forgotten_count += 1
        number = breaker.number
        self.idle.use(number)
        del self.by_number[number], self.named[breaker.name], self.spaces[breaker.namespace][number]
        if not self.spaces[breaker.namespace]:
            del self.spaces[breaker.namespace]
        self.owned[breaker.owner] -= 1
        if not self.owned[breaker.owner]:
            del self.owned[breaker.owner]
        watch = self.watch_of(breaker)
        if watch is not None:
            self._probed[watch.rule.table].remove(breaker)
        turn.forgot(breaker)

    def forget_due(self) -> float:
        """When `forgetting` may have something to do, at the earliest (s of CLOCK_MONOTONIC)."""
        return self.idle.first + FORGET_S

    def configure(self, told: Configured, turn: Turn) -> None:
        """The configuration file was read, for the first time or again; windows and states are kept."""
        before = self.configured
        self.configured = {}
        for name, text, critical in told.breakers:
            try:
                settings = None if text in NO_SETTINGS else read_settings(text)
            except SettingsError as error:
                # settings.py checks the file before; what gets here was written by another version.
                turn.happened("supervisor", f"the configuration of breaker {name} is not used: {error}")
                settings = None
            self.configured[name] = (settings, critical)
        self._assign_all()
        for breaker in self.numbered:
            breaker.configured, breaker.critical = self._said(breaker.namespace, breaker.short)
            self.choose(breaker, turn)
            self._gate(breaker, turn.now)
            turn.touch(breaker)
        if self.configured != before:
            deciding = [name for name, (settings, _) in self.configured.items() if settings is not None]
            names = ", ".join(deciding) or "none"
            turn.happened("supervisor", f"the configuration file decides about breakers: {names}")

    def _said(self, namespace: str, short: str) -> tuple[BreakerSettings | None, bool]:
        """What the configuration file says of this breaker."""
        exact = self.configured.get(f"{namespace}/{short}")
        return exact if exact is not None else self.configured.get(short, (None, False))

    def choose(self, breaker: HostBreaker, turn: Turn) -> None:
        """Put the wanted settings into force and tell when declarations begin or cease to differ."""
        wanted = breaker.wanted()
        if wanted != breaker.breaker.settings:
            breaker.breaker.configure(wanted, turn.now)
            turn.touch(breaker)
            source = "the configuration" if breaker.configured is not None else "its workers"
            text = f"{breaker.name}: new settings from {source}"
            turn.happened("breaker", text, breaker.name, event="settings")
        differing = breaker.differing
        if bool(differing) != bool(breaker.conflicting):
            text = (
                f"{differing} of its workers declare other settings"
                if differing
                else "its workers agree again"
            )
            turn.happened(
                "breaker", f"{breaker.name}: {text}", breaker.name, event="conflict", workers=str(differing)
            )
        breaker.conflicting = differing

    # --- probes -----------------------------------------------------------------------------------

    def configure_probes(self, told: ProbesConfigured, turn: Turn) -> None:
        """Which tables have a probe now; one whose table has not changed goes on where it stood."""
        before = self.watches
        self.watches = {}
        for rule in told.probes:
            known = before.get(rule.table)
            self.watches[rule.table] = known if known and known.rule == rule else ProbeWatch(rule)
        self._assign_all()
        for breaker in self.numbered:
            self._gate(breaker, turn.now)
            turn.touch(breaker)

    def probe_ended(self, told: ProbeEnded, turn: Turn) -> None:
        """A probe spoke, for every breaker of its table. One that is there no more has nothing to say."""
        watch = self.watches.get(told.table)
        if watch is None or watch.rule.digest != told.digest:
            return
        news = watch.take(told, turn.now)
        if news:
            facts = {"event": "probe", "probe": told.table, "verdict": watch.verdict}
            turn.happened("breaker", f"{told.table}: {news}", **facts)
        if watch.verdict == ERROR:
            return
        for breaker in self._probed[told.table]:
            self._gate(breaker, turn.now)
            if watch.fallen(breaker.breaker.since):
                cause = f"its probe failed {watch.run} times: {watch.text}"
                breaker.breaker.trip(cause, turn.now, breaker.chance(turn.chance))
            turn.touch(breaker)

    def watch_of(self, breaker: HostBreaker) -> ProbeWatch | None:
        """The probe that speaks for this breaker: that of its exact table, if it has one, probed or not."""
        exact = breaker.name
        return self.watches.get(exact if exact in self.configured else breaker.short)

    def probe_of(self, name: str) -> str:
        """The table whose probe is meant by a breaker's name, full or short, or by the table's own; empty =
        there is none. Raises BreakerNotFound.
        """
        if name in self.watches:
            return name
        watch = self.watch_of(self.named[self.resolve(name)])
        return "" if watch is None else watch.rule.table

    def _assign_all(self) -> None:
        """Names or probes have changed: note anew which probe speaks for which breakers."""
        self._probed = {table: [] for table in self.watches}
        for breaker in self.numbered:
            self._assign(breaker)

    def _assign(self, breaker: HostBreaker) -> None:
        watch = self.watch_of(breaker)
        if watch is not None:
            self._probed[watch.rule.table].append(breaker)

    def _gate(self, breaker: HostBreaker, now: float) -> None:
        """Let the probe's last words, or that there is none, act on a breaker."""
        watch, judge = self.watch_of(breaker), breaker.breaker
        if watch is None:
            judge.gate(NEVER, vouched=False, now=now)
        else:
            judge.gate(watch.until, watch.risen(judge.since), now)

    def probing(self) -> tuple[Probing, ...]:
        """For the schedule of probes: every table that has one, and since when its breakers wait for it."""
        found = []
        for table, breakers in self._probed.items():
            since = [one.breaker.since for one in breakers if one.state is BreakerState.OPEN]
            found.append(Probing(table, bool(since), max(since, default=NEVER)))
        return tuple(found)

    # --- snapshots --------------------------------------------------------------------------------

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        for breaker in self.numbered:
            breaker.shift(delta_s)
        for watch in self.watches.values():
            watch.shift(delta_s)
        self.idle.shift(delta_s)
        if self.full_at is not None:
            self.full_at += delta_s

    def to_plain(self) -> list[Any]:
        """The breakers, the configuration and the probes as JSON values."""
        return [
            [breaker.to_plain() for breaker in self.numbered],
            [
                [name, None if settings is None else settings.to_json(), critical]
                for name, (settings, critical) in self.configured.items()
            ],
            [watch.to_plain() for watch in self.watches.values()],
            [self.following, self.own, self.forgotten_count, self.forgotten.to_plain()],
            [list(resting) for resting in self.idle.to_plain()],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Catalogue:
        """The catalogue that `to_plain` wrote."""
        catalogue = cls()
        for values in plain[0]:
            catalogue._add(HostBreaker.from_plain(values))
        for name, settings, critical in plain[1]:
            read = None if settings is None else BreakerSettings.from_json(settings)
            catalogue.configured[name] = (read, critical)
        for values in plain[2]:
            watch = ProbeWatch.from_plain(values)
            catalogue.watches[watch.rule.table] = watch
        catalogue.following, catalogue.own, catalogue.forgotten_count, counted = plain[3]
        catalogue.forgotten = BreakerMetrics.from_plain(counted)
        for number, owner, since in plain[4]:
            catalogue.idle.rest(number, owner, since)
        catalogue._assign_all()
        return catalogue
