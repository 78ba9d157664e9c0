"""Descriptors over the nursery's death: what was stored comes back as it was, what is not whole does not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import store
from supervisor.descriptors import Held, close_all
from supervisor.notify import Notifier
from supervisor.store import Store


class Keeper:
    """systemd's part: keeps what is stored, by name, in the order in which it chooses to give it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: list[tuple[str, int]] = []
        self._speaking: list[Notifier] = []
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(path))
        self._end.setblocking(False)

    def notifier(self) -> Notifier:
        """Somebody who speaks to it."""
        self._speaking.append(Notifier(str(self.path)))
        return self._speaking[-1]

    def work(self) -> None:
        """Take every datagram."""
        while True:
            try:
                data, numbers, _, _ = socket.recv_fds(self._end, 4096, 8)
            except BlockingIOError:
                return
            lines = dict(line.split("=", 1) for line in data.decode().splitlines())
            if "FDSTORE" in lines:
                self.kept = [(lines["FDNAME"], number) for number in numbers] + self.kept
            elif "FDSTOREREMOVE" in lines:
                close_all([number for name, number in self.kept if name == lines["FDNAME"]])
                self.kept = [one for one in self.kept if one[0] != lines["FDNAME"]]

    def given(self) -> tuple[tuple[str, int], ...]:
        """Copies of everything, as a new process gets them."""
        self.work()
        return tuple((name, os.dup(number)) for name, number in self.kept)

    def close(self) -> None:
        """The end."""
        self.work()
        close_all([number for _, number in self.kept])
        self._end.close()
        for one in self._speaking:
            one.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """A store."""
    made = Keeper(tmp_path / "notify")
    yield made
    made.close()


def life(keeper: Keeper) -> Store:
    """The store as one life of the nursery sees it."""
    return Store(keeper.notifier())


def worker(digit: str) -> Held:
    """A worker with a segment whose content is its digit."""
    memory = os.memfd_create("segment", os.MFD_CLOEXEC)
    os.write(memory, digit.encode())
    return Held(digit * 32, memory, os.pidfd_open(os.getpid()), {"name": f"web-{digit}", "pid": 7})


def free(*workers: Held) -> None:
    """Close their descriptors."""
    close_all([number for one in workers for number in (one.memory, one.pidfd)])


def test_workers_and_bell_come_back_as_they_were(keeper: Keeper) -> None:
    """Nonce, who it is, which descriptor is which; in whatever order systemd gives them."""
    first = life(keeper)
    workers = [worker(digit) for digit in "abc"]
    for one in workers:
        first.keep(one)
    for uid in (0, 1001, 4_000_000_000):
        bell = os.eventfd(uid % 4000 + 1, os.EFD_CLOEXEC)
        first.keep_bell(uid, bell)
        os.close(bell)
    shared_by_all = os.eventfd(3, os.EFD_CLOEXEC)
    keeper.notifier().store("bell", (shared_by_all,))
    os.close(shared_by_all)
    free(*workers)

    found, bells = life(keeper).recover(keeper.given())
    assert {nonce: held.about for nonce, held in found.items()} == {one.nonce: one.about for one in workers}
    assert [os.pread(found[digit * 32].memory, 9, 0) for digit in "abc"] == [b"a", b"b", b"c"]
    assert {uid: os.eventfd_read(bell) for uid, bell in bells.items()} == {0: 1, 1001: 1002, 4_000_000_000: 1}
    free(*found.values())
    close_all(list(bells.values()))
    keeper.work()
    assert "bell" not in [name for name, _ in keeper.kept], "one that users share is kept for nobody"
    first.drop_bell(1001)
    keeper.work()
    assert sorted(name for name, _ in keeper.kept if name.startswith("bell")) == ["bell-0", "bell-4000000000"]


def test_what_is_dropped_is_removed_also_in_a_later_life(keeper: Keeper) -> None:
    """And a name is not given twice while something has it."""
    first = life(keeper)
    one, two, three = (worker(digit) for digit in "abc")
    first.keep(one)
    first.keep(two)
    first.drop(one.nonce)
    second = life(keeper)
    found, _ = second.recover(keeper.given())
    assert set(found) == {two.nonce}
    second.keep(one)
    second.keep(three)
    keeper.work()
    assert len({name for name, _ in keeper.kept}) == 3
    for nonce in (one.nonce, two.nonce, three.nonce, "f" * 32):
        second.drop(nonce)
    keeper.work()
    assert keeper.kept == []
    free(one, two, three, *found.values())


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_what_is_not_whole_is_closed_and_removed(keeper: Keeper, missing: int) -> None:
    """At systemd's own limit a descriptor may be missing: the worker has its segment still."""
    first = life(keeper)
    broken, whole = worker("a"), worker("b")
    first.keep(broken)
    keeper.work()
    os.close(keeper.kept.pop(missing)[1])
    first.keep(whole)
    second = life(keeper)
    before = len(os.listdir("/proc/self/fd"))
    found, bells = second.recover(keeper.given())
    assert (set(found), bells) == ({whole.nonce}, {})
    keeper.work()
    assert {name for name, _ in keeper.kept} == {"1"}
    free(*found.values())
    # The two of the broken one are gone from the store, too.
    assert len(os.listdir("/proc/self/fd")) == before - 2 + 3
    free(broken, whole)


@pytest.mark.parametrize("about", [b"", b"[]", b"{}", b'{"nonce": 7}', b"\xff"])
def test_a_stranger_in_the_store_is_no_worker(keeper: Keeper, about: bytes) -> None:
    """Whatever it says of itself."""
    one = worker("a")
    strange = os.memfd_create(store.ABOUT, os.MFD_CLOEXEC)
    os.write(strange, about)
    keeper.notifier().store("x", (one.memory, one.pidfd, strange))
    os.close(strange)
    found, _ = life(keeper).recover(keeper.given())
    assert found == {}
    keeper.work()
    assert keeper.kept == []
    free(one)


def test_without_systemd_nothing_is_kept() -> None:
    """And nothing is made for it."""
    one = worker("a")
    before = len(os.listdir("/proc/self/fd"))
    alone = Store(Notifier())
    alone.keep(one)
    alone.drop(one.nonce)
    assert len(os.listdir("/proc/self/fd")) == before
    free(one)
