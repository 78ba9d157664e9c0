"""A breaker of many workers: joining and leaving cost what they cost beside few, and every row is right."""

from __future__ import annotations

import json
import random

import pytest

from ipc.breaker import Breaker
from ipc.vocabulary import BreakerSettings
from supervisor.host_breaker import HostBreaker
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce

LETTERS = "abcdefgh"
SETTINGS = tuple(BreakerSettings(failure_threshold=number, recovery_timeout=3.0) for number in (2, 3, 5))


def step(host: Host, dice: random.Random) -> None:
    """Something that can happen to a breaker or its workers."""
    letter = dice.choice(LETTERS)
    attached = [one for one in LETTERS if nonce(one) in host.engine.workers]
    what = dice.random()
    host.now += dice.random() * 2
    if letter not in attached:
        host.settle_in(letter, settings=dice.choice(SETTINGS))
    elif what < 0.2:
        host.leave(letter)
    elif what < 0.3:
        host.declare(letter, row=dice.randrange(3), settings=dice.choice(SETTINGS))
    elif what < 0.35:
        host.command(dice.choice(("force-open", "reset", "enable", "disable", "metrics-only")))
    else:
        host.outcomes(*((dice.choice(attached), dice.choice((SUCCESS, FAILURE, FAILURE))) for _ in range(4)))


def check(breaker: HostBreaker) -> None:
    """Every row shows what the breaker says to its worker, and the declarations are counted as they are."""
    for (worker, _), word in breaker.shown.items():
        assert word == breaker.breaker.word(worker)
    others = sum(settings != breaker.breaker.settings for settings in breaker.declared.values())
    assert breaker.differing == others == sum(map(len, breaker.conflicts().values()))


@pytest.mark.parametrize("seed", range(12))
def test_every_row_shows_its_word_whatever_happened(seed: int) -> None:
    """Workers join, leave, are isolated, disagree and open the breaker: nobody is forgotten."""
    host, dice = Host(), random.Random(seed)
    host.start()
    for _ in range(250):
        step(host, dice)
        for breaker in host.engine.catalogue.numbered:
            check(breaker)
            for place, word in breaker.shown.items():
                assert host.board.get(place, 0) == word


class Counting(Breaker):
    """Counts how often it was asked for a word."""

    __slots__ = ("asked",)

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        super().__init__(settings, now)
        self.asked = 0

    def word(self, party: str) -> int:
        """One more."""
        self.asked += 1
        return super().word(party)


def test_a_worker_joins_many_as_it_joins_few() -> None:
    """Who joins or leaves a closed breaker has its own row looked at, not that of everybody."""
    judge = Counting(SETTINGS[0], 0.0)
    breaker = HostBreaker(0, "app", "database", judge)
    costs = []
    for number in range(150):
        before = judge.asked
        judge.join(str(number), 0.0)
        breaker.show(str(number), 0)
        assert [found[0] for found in breaker.changed_words()] == [str(number)]
        costs.append(judge.asked - before)
    assert costs[140] <= costs[1]
    before = judge.asked
    judge.leave("0", 0.0)
    breaker.hide("0")
    assert (list(breaker.changed_words()), judge.asked - before) == ([], 1)


def test_equal_declarations_are_kept_once_and_come_back() -> None:
    """A snapshot names the settings of many workers once; an older one, which repeats them, is read alike."""
    host = Host()
    for number in range(60):
        host.settle_in(chr(0x4E00 + number), settings=SETTINGS[number % 2])
    (breaker,) = host.engine.catalogue.numbered
    plain = json.loads(json.dumps(breaker.to_plain()))
    repeated = [[worker, settings.to_json()] for worker, settings in breaker.declared.items()]
    assert json.dumps(plain).count("failure_threshold") == 3
    assert HostBreaker.from_plain(plain).declared == breaker.declared
    old = HostBreaker.from_plain([*plain[:5], repeated, *plain[6:]])
    assert (old.declared, old.differing) == (breaker.declared, 30)


def test_the_first_declaration_decides_until_its_last_worker_left() -> None:
    """Who says the same thing twice is counted once, and the next in line follows."""
    host = Host()
    host.settle_in("a", settings=SETTINGS[0])
    host.settle_in("b", settings=SETTINGS[1])
    host.declare("a", row=1, settings=SETTINGS[0])
    (breaker,) = host.engine.catalogue.numbered
    assert (breaker.breaker.settings, breaker.differing) == (SETTINGS[0], 1)
    host.leave("a")
    assert (breaker.breaker.settings, breaker.differing) == (SETTINGS[1], 0)


def test_who_leaves_takes_all_its_rows_along() -> None:
    """Two rows of one breaker, and a row of another: nothing of the worker is shown any more."""
    host = Host()
    host.settle_in("a", "b")
    host.declare("a", row=1)
    host.declare("a", "cache", row=2)
    host.leave("a")
    shown = [place for breaker in host.engine.catalogue.numbered for place in breaker.shown]
    assert shown == [(nonce("b"), 0)]
