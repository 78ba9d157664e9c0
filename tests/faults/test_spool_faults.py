"""The spool, its threads and its disk: dead processes, full and failing disks, logs without a disk."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import could_not_run
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.shelves import Shelf, shelf
from tests.faults.talkers import memory, programs, read
from tests.live.house import ROOT
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Conversation, Deletion, StoreOutcome
from workers.memory.spool import Spool
from workers.memory.spooled import record_of

pytestmark = pytest.mark.timeout(PATIENCE_S)

DEAD: Final = "postgresql://ann:canary-4711@127.0.0.1:1/nowhere?sslpassword=canary-4711"
"""A database where nobody listens."""
CANARY: Final = "canary-4711"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Shelf]:
    """A small file system of its own, of 2 MiB."""
    with shelf(tmp_path / "shelf", 2, "F2") as made:
        yield made


def away(folder: Path, spool: Path) -> MemoryConfig:
    """A memory whose database is away."""
    return MemoryConfig(database_url=DEAD, spool_directory=str(spool))


def home(folder: Path, spool: Path) -> list[str]:
    """Bring what is in the spool home into a database; what ann said."""
    url = f"sqlite:///{folder}/home.db"
    with memory(MemoryConfig(database_url=url, spool_directory=str(spool))) as manager:
        assert manager.flush(60.0)
        return [json.loads(line)["user_message"] for line in manager.export_user("ann")]


@pytest.mark.fault("B7")
@pytest.mark.fault("S14")
@pytest.mark.fault("L6")
@pytest.mark.parametrize("end", ["os._exit", "kill -9", "leave"])
def test_b7_what_was_acknowledged_outlives_the_process(tmp_path: Path, end: str) -> None:
    """Ended by another thread, by a kill, or by the interpreter while eight threads put: all is there."""
    ledgers = [tmp_path / f"ledger{number}" for number in range(effort(3, 30))]
    order = {"play": "talk", "threads": 8, "user": "ann"}
    order |= {"config": {"database_url": DEAD, "spool_directory": str(tmp_path / "spool")}}
    order |= {"os._exit": {"die": 100}, "kill -9": {}, "leave": {"leave": True, "times": 40}}[end]
    with programs([order | {"ledger": str(path)} for path in ledgers]) as running:
        if end == "kill -9":
            while len(read(ledgers)) < 300:
                time.sleep(0.005)
        else:
            codes = [one.wait(30.0) for one in running]
            assert codes == [9 if end == "os._exit" else 0] * len(ledgers)
    lines = read(ledgers)
    assert {line[0] for line in lines} == {"spooled"}
    acknowledged = {line[1] for line in lines}
    assert len(acknowledged) == len(lines)
    home(tmp_path, tmp_path / "spool")
    with contextlib.closing(sqlite3.connect(tmp_path / "home.db")) as link:
        rows = [row[0] for row in link.execute("SELECT id FROM memory_conversations")]
    kept = {f"{row[:8]}-{row[8:12]}-{row[12:16]}-{row[16:20]}-{row[20:]}" for row in rows}
    assert len(kept) == len(rows)
    assert acknowledged <= kept
    # Beside them only what a dying thread had kept and could not tell.
    assert len(kept - acknowledged) <= 8 * len(ledgers)


@pytest.mark.fault("F1")
@pytest.mark.fault("F2")
def test_f2_a_full_disk_refuses_and_recovers(disk: Shelf, tmp_path: Path) -> None:
    """No room: rejected with the reason, never a false True, no half record; with room it goes on."""
    with memory(away(tmp_path, disk.place / "spool")) as manager:
        assert manager.store_conversation_safe("ann", "first", "x")
        disk.fill()
        results = [manager.store_conversation("ann", f"{n} " + "x" * 30_000, "y") for n in range(20)]
        kept = [n for n, one in enumerate(results) if one.outcome is StoreOutcome.SPOOLED]
        assert results[-1].outcome is StoreOutcome.REJECTED
        assert results[-1].reason.startswith("spool_unavailable: ")
        health = manager.get_system_health()
        assert (health["is_healthy"], health["memory"]["spool"]["takes_writes"]) == (False, False)
        disk.empty()
        assert manager.store_conversation_safe("ann", "last", "x")
        assert manager.get_system_health()["memory"]["spool"]["takes_writes"] is True
    assert home(tmp_path, disk.place / "spool") == ["first", *(f"{n} " + "x" * 30_000 for n in kept), "last"]


@pytest.mark.fault("F6")
@pytest.mark.parametrize("begun", [True, False])
def test_f6_a_disk_that_only_reads_refuses_and_recovers(disk: Shelf, tmp_path: Path, begun: bool) -> None:
    """Mounted read-only, with something in the spool or nothing: rejected; writable again, all goes on."""
    config = away(tmp_path, disk.place / "spool")
    if begun:
        order = {"play": "talk", "times": 1, "user": "ann", "ledger": str(tmp_path / "ledger")}
        order["config"] = {"database_url": DEAD, "spool_directory": str(disk.place / "spool")}
        with programs([order]) as (one,):
            assert one.wait(30.0) == 0
    disk.only_read()
    manager = memory(config)
    result = manager.store_conversation("ann", "second", "x")
    told = [one.conversation.user_message for one in manager.history("ann")]
    disk.write_again()
    assert result.outcome is StoreOutcome.REJECTED
    assert result.reason.startswith("spool_unavailable: ")
    assert told in ([], ["0-0"] * begun)
    assert manager.store_conversation_safe("ann", "third", "x")
    manager.close()
    assert home(tmp_path, disk.place / "spool") == ["0-0"] * begun + ["third"]


FAILING: Final = """
import ctypes, struct, sys, threading
from workers.memory.records import Conversation
from workers.memory.spool import Spool
from workers.memory.spooled import look, record_of
from workers.errors import SpoolUnavailable

def say(text):
    spool.put(record_of(Conversation.now("ann", text, "x")))

def deny():
    # A filter of this thread alone: fsync (74) and fdatasync (75) end with EIO.
    rows = [(0x20, 0, 0, 0), (0x15, 1, 0, 74), (0x15, 0, 1, 75)]
    rows += [(0x06, 0, 0, 0x00050000 | 5), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *row) for row in rows)
    held = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        print("cannot"); sys.stdout.flush(); import os; os._exit(3)

def fail():
    deny()
    for text in ("two", "three"):
        try:
            say(text)
            told.append("kept " + text)
        except SpoolUnavailable as error:
            told.append("refused")

spool, told = Spool(sys.argv[1], 1 << 30), []
say("one")
thread = threading.Thread(target=fail)
thread.start(); thread.join()
say("four")
spool.tend()
print(told, [one.user_message for one in look(spool, "ann").conversations])
"""


@pytest.mark.fault("F4")
def test_f4_a_sync_that_fails_is_no_acknowledgement(tmp_path: Path) -> None:
    """EIO on fsync: refused, the file is given up and checked, another is begun, nothing earlier is lost."""
    if os.uname().machine != "x86_64":
        could_not_run("F4", "the numbers of system calls are those of x86_64")
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path / "spool")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BREAKERD_SOCKET": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 3:
        could_not_run("F4", "no filter of system calls here")
    assert done.returncode == 0, done.stderr
    told, _, rest = done.stdout.strip().partition("] ")
    assert told == "['refused', 'refused'"
    kept = rest.partition("]")[0]
    assert "'one'" in kept
    assert "'four'" in kept
    assert "I/O error" in done.stderr


LOGGING: Final = """
import logging, os, sys
logging.basicConfig(level=logging.INFO, filename="/dev/full" if sys.argv[2] == "full" else None)
if sys.argv[2] == "closed":
    os.close(2)
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
manager = EnhancedMemoryLayerManager(MemoryConfig(database_url=sys.argv[3], spool_directory=sys.argv[1]))
print(sum(manager.store_conversation_safe("ann", str(number), "x") for number in range(200)))
manager.close()
"""


@pytest.mark.fault("F3")
@pytest.mark.parametrize("log", ["full", "closed"])
def test_f3_a_log_that_cannot_be_written_costs_nothing(tmp_path: Path, log: str) -> None:
    """The log's disk is full, or there is no standard error: every call is served, complaints are few."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGING, str(tmp_path / "spool"), log, DEAD],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BREAKERD_SOCKET": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr[-2000:]
    assert done.stderr.count("--- Logging error ---") <= 20


@pytest.mark.fault("S19")
def test_s19_no_secret_in_any_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Passwords of both URLs and what users say: not in logs, health, texts of errors or of the settings."""
    caplog.set_level("INFO")
    config = MemoryConfig(
        database_url=DEAD,
        cache_url=f"redis://ann:{CANARY}@127.0.0.1:1/0",
        spool_directory=str(tmp_path / "spool"),
        spool_max_bytes=1 << 20,
    )
    texts = [repr(config), str(config)]
    with memory(config) as manager:
        said = f"{CANARY} " + "x" * 100_000
        results = [manager.store_conversation(f"{CANARY}", said, said, ["search"]) for _ in range(15)]
        assert results[-1].outcome is StoreOutcome.REJECTED
        manager.retrieve_context_safe(said[:50], CANARY)
        manager.history(CANARY)
        assert manager.delete_user(CANARY) in (Deletion.ACCEPTED, Deletion.REJECTED)
        for call in (manager.tool_statistics, lambda: list(manager.export_user(CANARY))):
            with pytest.raises(Exception) as caught:
                call()
            texts.append(f"{caught.value!r} {caught.value}")
        texts += [str(manager.get_system_health()), repr(manager), *(one.reason for one in results)]
    texts += [caplog.text, *(str(one.__dict__) for one in caplog.records)]
    assert [text for text in texts if CANARY in text] == []


@pytest.mark.fault("S14")
def test_s14_a_deleted_user_is_in_no_byte_of_the_files(tmp_path: Path) -> None:
    """SQLite, held by another process: accepted, obeyed at once, completed later, and no byte is left."""
    config = MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db",
        spool_directory=str(tmp_path / "spool"),
        database_timeout_s=0.3,
    )
    with memory(config) as manager, memory(config) as other:
        for number in range(50):
            assert manager.store_conversation_safe("ann", f"{CANARY}-{number}", CANARY, [CANARY])
        assert manager.store_conversation_safe("bob", "stays", "x")
        assert len(other.retrieve_context_safe(CANARY, "ann")) == 10
        holder = sqlite3.connect(tmp_path / "memory.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert manager.store_conversation("ann", f"{CANARY}-late", "x").outcome is StoreOutcome.SPOOLED
        assert manager.delete_user("ann") is Deletion.ACCEPTED
        _nothing_of(manager, other)
        holder.execute("ROLLBACK")
        holder.close()
        assert manager.flush(30.0)
        _nothing_of(manager, other)
        assert len(other.history("bob")) == 1
        assert _bytes(tmp_path) == []
        assert manager.store_conversation_safe("ann", "again", "x")
        assert [one.conversation.user_message for one in other.history("ann")] == ["again"]
    assert _bytes(tmp_path) == []


def _nothing_of(*managers: EnhancedMemoryLayerManager) -> None:
    for each in managers:
        assert each.history("ann") == each.retrieve_context_safe(CANARY, "ann") == []


def _bytes(folder: Path) -> list[str]:
    """Files that hold something of the user."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.fault("B4")
def test_b4_forked_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    """Forks while threads put: children go on with files of their own, and everything put is there once."""
    with memory(away(tmp_path, tmp_path / "spool")) as manager:
        assert manager.store_conversation_safe("ann", "before", "x")
        spool, children = manager._backing.spool, []
        for number in range(effort(5, 50)):
            spool.put(record_of(Conversation.now("ann", f"parent {number}", "x")))
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    done = manager.store_conversation("ann", f"child {number}", "x")
                    code = 0 if done.outcome is StoreOutcome.SPOOLED else 2
                finally:
                    os._exit(code)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
    expected = ["before", *(f"{who} {n}" for n in range(len(children)) for who in ("parent", "child"))]
    assert sorted(home(tmp_path, tmp_path / "spool")) == sorted(expected)
    assert Spool(str(tmp_path / "spool"), 1 << 30).next_batch(1) == []
