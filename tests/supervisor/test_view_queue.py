"""One user's questions never take the loop from another's: turns, rests, bounds."""

from __future__ import annotations

from supervisor.connections import Request
from supervisor.view_queue import REST_FACTOR, REST_MIN_S, WAIT_MAX_S, WAITING_PER_UID_MAX, ViewQueue
from tests.supervisor.answering import request


class Desk:
    """A queue whose answers take as long as a test says."""

    def __init__(self, took_s: float = 0.1) -> None:
        self.now = 100.0
        self.took_s = took_s
        self.answered: list[int] = []
        self.refused: list[int] = []
        self.queue = ViewQueue(self.answer, lambda one: self.refused.append(one.connection), lambda: self.now)

    def answer(self, asked: Request) -> None:
        """Make one answer."""
        self.now += self.took_s
        self.answered.append(asked.connection)

    def run(self, until: float) -> None:
        """Turns, each as soon as it may be."""
        while (at := self.queue.next_time()) is not None and max(at, self.now) < until:
            self.now = max(at, self.now)
            self.queue.turn()


def test_who_asks_now_and_then_is_answered_at_once() -> None:
    """A cheap answer is followed by hardly a rest, a dear one by a rest of that user alone."""
    desk = Desk(took_s=0.0004)
    for number in range(100):
        desk.queue.ask(request(number, "health", 7))
        desk.now += REST_MIN_S
    assert desk.answered == list(range(100))
    desk.took_s = 0.1
    for number, uid in ((1, 7), (2, 7), (3, 8)):
        desk.queue.ask(request(100 + number, "breakers", uid))
    assert desk.answered[100:] == [101, 103], "another user does not wait for the rest of the first"
    desk.run(desk.now + 0.15)
    assert desk.answered[100:] == [101, 103]
    desk.run(desk.now + 0.3)
    assert desk.answered[100:] == [101, 103, 102]


def test_a_flood_takes_a_quarter_of_the_time_and_another_user_waits_for_one_answer() -> None:
    """Sixty large questions of one user beside one of another."""
    desk = Desk()
    for number in range(60):
        desk.queue.ask(request(number, "breakers", 1001))
    desk.run(101.0)
    before = len(desk.answered)
    assert before <= 1.0 / (0.1 * (1.0 + REST_FACTOR)) + 1
    asked_at = desk.now
    desk.queue.ask(request(999, "breakers", 1002))
    desk.run(asked_at + 0.31)
    assert 999 in desk.answered
    assert desk.answered.index(999) <= before + 1


def test_what_waits_too_long_or_is_too_much_is_refused() -> None:
    """As busy: the asker asks again; one who has given up costs no answer."""
    desk = Desk()
    for number in range(WAITING_PER_UID_MAX + 3):
        desk.queue.ask(request(number, "breakers", 1001))
    assert desk.refused == [WAITING_PER_UID_MAX + 1, WAITING_PER_UID_MAX + 2]
    desk.run(desk.now + 2 * WAIT_MAX_S)
    assert len(desk.answered) + len(desk.refused) == WAITING_PER_UID_MAX + 3
    desk.queue.ask(request(1, "breakers", 5))
    desk.queue.ask(request(2, "breakers", 5, until=desk.now + 0.05))
    desk.queue.ask(request(3, "breakers", 5))
    desk.run(desk.now + 1.0)
    assert (desk.answered[-1], desk.refused[-1]) == (3, 2)
    for number in range(10, 13):
        desk.queue.ask(request(number, "breakers", 5))
    desk.queue.clear()
    assert desk.refused[-2:] == [11, 12] or desk.refused[-3:] == [10, 11, 12]
    assert desk.queue.next_time() is None


def test_an_answer_that_raises_has_its_rest_too() -> None:
    """What is dear and fails is no way round."""
    desk = Desk()

    def fails(_asked: Request) -> None:
        desk.now += 1.0
        raise ValueError

    desk.queue = ViewQueue(fails, lambda one: desk.refused.append(one.connection), lambda: desk.now)
    try:
        desk.queue.ask(request(1, "breakers", 5))
    except ValueError:
        desk.queue.ask(request(2, "breakers", 5))
    assert desk.queue.next_time() == desk.now + REST_FACTOR


def test_privileged_questions_do_not_wait() -> None:
    """Root's are answered at once beside a flood of another user's, and are followed by no rest."""
    desk = Desk()
    desk.queue.is_privileged = lambda uid: uid == 0
    for number in range(20):
        desk.queue.ask(request(number, "breakers", 1001))
    for number in (100, 101, 102):
        desk.queue.ask(request(number, "health", 0))
    assert desk.answered == [0, 100, 101, 102]
