"""The manager in several processes: one loader per key, and an end of the process that hangs on nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.sources import ROOT
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Found
from workers.memory.store import Store

PROCESSES = 4
THREADS = 25


class Counting(Store):
    """A real store that leaves a byte in a file for each search."""

    def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
        """Search, and be counted."""
        number = os.open(f"{self.config.spool_directory}/loads", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(number, b"!")
        os.close(number)
        return super().search(user_id, query, limit)


@pytest.fixture
def config(tmp_path: Path, valkey: RedisServer, unattached: object) -> MemoryConfig:
    """An SQLite file, and a cache that processes share."""
    return MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db",
        spool_directory=str(tmp_path / "spool"),
        cache_url=valkey.url(),
        cache_timeout_s=5.0,
        database_timeout_s=20.0,
    )


READERS = f"""
import sys, threading
from tests.workers.memory.test_manager_processes import Counting
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
url, spool, cache = sys.argv[1:]
config = MemoryConfig(database_url=url, spool_directory=spool, cache_url=cache, cache_timeout_s=5.0,
                      database_timeout_s=20.0)
manager = EnhancedMemoryLayerManager(config, store=Counting(config))
print("ready", flush=True)
sys.stdin.readline()
found = []
threads = [threading.Thread(target=lambda: found.append(len(manager.retrieve_context_safe("hot", "ann"))))
           for _ in range({THREADS})]
[one.start() for one in threads]
[one.join() for one in threads]
assert found == [1] * {THREADS}, found
manager.close()
"""


@pytest.mark.fault("H8")
def test_h8_a_hundred_readers_in_four_processes_are_one_loader(config: MemoryConfig) -> None:
    """All of them want the same key at once: the database is asked once."""
    with EnhancedMemoryLayerManager(config) as manager:
        assert manager.store_conversation_safe("ann", "a hot topic", "x")
        command = [sys.executable, "-c", READERS, config.database_url, config.spool_directory]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "BREAKERD_SOCKET": "off"}
        readers = [
            subprocess.Popen(
                [*command, str(config.cache_url)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(PROCESSES)
        ]
        for one in readers:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in readers:
            one.communicate("go\n", timeout=60)
        assert [one.returncode for one in readers] == [0] * PROCESSES
    assert (Path(config.spool_directory) / "loads").read_bytes() == b"!"


LEAVER = """
import sys
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
config = MemoryConfig(database_url="postgresql://nobody@127.0.0.1:1/none", spool_directory=sys.argv[1])
manager = EnhancedMemoryLayerManager(config)
print([manager.store_conversation("ann", str(number), "x").outcome.value for number in range(3)])
print([one.conversation.user_message for one in manager.history("ann")])
"""


@pytest.mark.fault("B7")
def test_b7_a_process_ends_in_the_middle_of_replay(tmp_path: Path) -> None:
    """Everything is down from the start; nothing is closed: it ends at once, quietly, and loses nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAVER, str(tmp_path / "spool")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "BREAKERD_SOCKET": "off"},
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['spooled', 'spooled', 'spooled']\n['2', '1', '0']\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
