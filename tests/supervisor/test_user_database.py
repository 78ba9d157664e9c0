"""The user database may hang: nobody waits for it in the loop, and a failure is not remembered."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from supervisor.user_database import (
    KEEP_S,
    THREADS_MAX,
    WAIT_S,
    WAITING_MAX,
    Account,
    AccountQuery,
    UserDatabase,
    look_up,
)
from tests.supervisor.test_descriptor_closer import until


class Directory:
    """A database that answers when the test lets it, and a loop that calls back when it is asked to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.names: dict[int, str] = {}
        self.asked: list[int] = []
        self.hangs = threading.Event()
        self.hangs.set()
        self.calls: list[Callable[[], None]] = []
        self.answers: list[Account | None] = []
        self.database = UserDatabase(self.calls.append, lambda: self.now, self.look_up)

    def look_up(self, query: AccountQuery) -> Account:
        """As the database, in a thread."""
        self.asked.append(query.uid)
        assert self.hangs.wait(10.0)
        name = self.names.get(query.uid)
        return Account(name or str(query.uid), name is not None)

    def ask(self, uid: int, answered: bool = True) -> None:
        """Ask about a user; with `answered` until there is an answer."""
        before = len(self.answers)
        self.database.resolve(AccountQuery(uid, uid), self.answers.append)
        if answered:
            until(lambda: self.turn() or len(self.answers) > before)

    def turn(self) -> bool:
        """A turn of the loop; False."""
        while self.calls:
            self.calls.pop(0)()
        return False


@pytest.fixture
def directory() -> Directory:
    """A database with one user."""
    made = Directory()
    made.names[1001] = "deploy"
    return made


def test_an_answer_is_kept_for_a_minute_and_asked_for_again_after_it(directory: Directory) -> None:
    """A uid that was given to somebody else keeps the old rights no longer than that."""
    for _ in range(3):
        directory.ask(1001)
    assert directory.asked == [1001]
    directory.names[1001] = "intern"
    directory.now += KEEP_S
    directory.ask(1001)
    assert [one.name for one in directory.answers if one] == ["deploy"] * 3 + ["intern"]


def test_an_unknown_uid_is_known_as_soon_as_the_database_knows_it(directory: Directory) -> None:
    """At boot, before LDAP: the failure is not kept."""
    directory.ask(1002)
    directory.names[1002] = "web"
    directory.ask(1002)
    assert directory.answers == [Account("1002"), Account("web", known=True)]


def test_a_hanging_database_gives_a_request_up_and_one_known_user_its_last_name(directory: Directory) -> None:
    """Nothing is waited for; WAIT_S later the old answer is used, or none."""
    directory.ask(1001)
    directory.now += KEEP_S
    directory.hangs.clear()
    for uid in (1001, 1002, 1003, 1004, 1005, 1006):
        directory.ask(uid, answered=False)
    until(lambda: len(directory.asked) == 1 + THREADS_MAX)
    directory.database.sweep()
    assert len(directory.answers) == 1
    directory.now += WAIT_S
    directory.database.sweep()
    assert directory.answers[1:] == [Account("deploy", known=True), None, None, None, None, None]
    assert len(directory.asked) == 1 + THREADS_MAX
    directory.hangs.set()
    until(lambda: directory.turn() or len(directory.calls) == 0)
    directory.ask(1001)
    assert directory.answers[-1] == Account("deploy", known=True)


def test_one_user_holds_one_thread_and_a_full_room_gives_up_at_once(directory: Directory) -> None:
    """A user who asks under a thousand namespaces keeps nobody else from the database."""
    directory.hangs.clear()
    for number in range(WAITING_MAX):
        query = AccountQuery(1001, 1001, (), f"n{number}")
        directory.database.resolve(query, directory.answers.append)
    directory.ask(1002, answered=False)
    assert directory.answers == [None]
    assert directory.asked == [1001]
    directory.hangs.set()


def test_the_host_says_who_root_is() -> None:
    """Name, groups by name, and whether a namespace is somebody's name."""
    found = look_up(AccountQuery(0, 0, ("root", "no-such-group"), "root"))
    assert found == Account("root", True, frozenset({0}), frozenset(os.getgrouplist("root", 0)), True)
    nobody = look_up(AccountQuery(4_000_000_000, 7, ("root",), "nobodys-name"))
    assert nobody == Account("4000000000", False, frozenset({0}), frozenset({7}), False)
