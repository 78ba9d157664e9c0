"""The manager for threads: what it calls stored is kept, and what it reads is all there is, once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from workers.errors import ClosedError, RecordError
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Conversation, Deletion, Source, StoreOutcome, ToolCall
from workers.memory.store import Store


class Switched(Store):
    """A real store with a switch: off, everything fails as a refused connection does."""

    on = True

    def _refuse(self) -> None:
        if not self.on:
            raise OperationalError("SELECT 1", {}, ConnectionRefusedError(111, "connection refused"))

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Insert, or fail."""
        self._refuse()
        return super().insert(conversations)

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """Read, or fail."""
        self._refuse()
        return super().history(user_id, limit, before)

    def search(self, user_id: str, query: str, limit: int = 10) -> list[object]:  # type: ignore[override]
        """Find, or fail."""
        self._refuse()
        return super().search(user_id, query, limit)  # type: ignore[return-value]

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """Erase, or fail."""
        self._refuse()
        super().erase(user_id, erased_at)


class Memory:
    """A manager over a switched store."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self.store = Switched(config)
        self.manager = EnhancedMemoryLayerManager(config, store=self.store)

    def down(self) -> None:
        """The database is away."""
        self.store.on = False

    def up(self) -> None:
        """The database is back, and the breaker lets calls through."""
        self.store.on = True
        self.manager.error_handler.get_circuit_breaker("database").reset()

    def say(self, text: str, user: str = "ann") -> StoreOutcome:
        """Store an exchange."""
        return self.manager.store_conversation(user, text, f"re: {text}", ["search"]).outcome

    def told(self, user: str = "ann") -> list[tuple[str, Source]]:
        """The history: what was said, and where it was found."""
        return [(one.conversation.user_message, one.source) for one in self.manager.history(user)]

    def found(self, query: str, user: str = "ann") -> set[str]:
        """What a search finds."""
        return {one.conversation.user_message for one in self.manager.retrieve_context_safe(query, user)}


@pytest.fixture
def config(tmp_path: Path) -> MemoryConfig:
    """Files of this test alone."""
    return MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db", spool_directory=str(tmp_path / "spool")
    )


@pytest.fixture
def memory(config: MemoryConfig, unattached: object) -> Iterator[Memory]:
    """A manager over a switched store, unattached, with fresh breakers."""
    made = Memory(config)
    yield made
    made.manager.close()


def test_what_is_stored_is_found(memory: Memory) -> None:
    """The guide's example: store, then retrieve by a word of it."""
    assert memory.say("How do I handle errors?") is StoreOutcome.STORED
    assert memory.found("errors") == {"How do I handle errors?"}
    assert memory.found("errors", "bob") == set()


def test_a_store_is_seen_by_the_next_read_although_reads_are_cached(memory: Memory) -> None:
    """Read your writes: the cache does not hide what was stored since."""
    memory.say("first")
    assert memory.told() == [("first", Source.DATABASE)]
    assert memory.told() == [("first", Source.CACHE)]
    memory.say("second")
    assert memory.told() == [("second", Source.DATABASE), ("first", Source.DATABASE)]


@pytest.mark.fault("G1")
def test_g1_in_an_outage_writes_are_spooled_and_reads_merge(memory: Memory) -> None:
    """Nothing said is lost, what is read comes from cache and spool, and says so."""
    memory.say("before the outage")
    memory.told()
    memory.down()
    assert memory.say("during the outage") is StoreOutcome.SPOOLED
    assert memory.told() == [("during the outage", Source.SPOOL), ("before the outage", Source.CACHE)]
    assert memory.found("outage") == {"during the outage", "before the outage"}
    assert memory.found("during") == {"during the outage"}
    memory.up()
    assert memory.manager.flush(10.0)
    assert memory.told() == [("during the outage", Source.DATABASE), ("before the outage", Source.DATABASE)]


def test_a_cached_age_is_told(memory: Memory) -> None:
    """What comes from the cache says how old it is; what does not, does not."""
    memory.say("x")
    assert [one.age_s for one in memory.manager.history("ann")] == [None]
    (age_s,) = [one.age_s for one in memory.manager.history("ann")]
    assert age_s is not None
    assert 0.0 <= age_s < 60.0


def test_a_second_process_sees_and_finishes_what_the_first_one_left(memory: Memory) -> None:
    """What is in the spool when a manager closes is there for the next one."""
    memory.down()
    memory.say("last words")
    memory.manager.close()
    other = Memory(memory.config)
    assert other.told() == [("last words", Source.SPOOL)] or other.manager.flush(10.0)
    other.up()
    assert other.manager.flush(10.0)
    assert [text for text, _ in other.told()] == ["last words"]
    other.manager.close()


def test_delete_user_leaves_nothing(memory: Memory, tmp_path: Path) -> None:
    """Database, index, cache and files forget the user; others stay."""
    memory.say("canary-one")
    memory.say("keep", "bob")
    memory.told()
    assert memory.manager.delete_user("ann") == "deleted"
    assert memory.told() == []
    assert memory.found("canary") == set()
    assert memory.found("keep", "bob") == {"keep"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary-one" in path.read_bytes()]
    assert memory.say("after") is StoreOutcome.STORED
    assert memory.told() == [("after", Source.DATABASE)]


def test_delete_user_in_an_outage_is_obeyed_at_once_and_completed_later(
    memory: Memory, tmp_path: Path
) -> None:
    """`accepted`: nothing is shown from then on, in no process, and afterwards nothing is left."""
    other = Memory(memory.config)
    memory.say("canary-stored")
    other.told()
    memory.told()
    memory.down()
    other.down()
    memory.say("canary-spooled")
    assert memory.manager.delete_user("ann") is Deletion.ACCEPTED
    assert (memory.told(), other.told()) == ([], [])
    assert (memory.found("canary"), other.found("canary")) == (set(), set())
    assert memory.say("after") is StoreOutcome.SPOOLED
    assert [text for text, _ in other.told()] == ["after"]
    memory.up()
    assert memory.manager.flush(10.0)
    assert [text for text, _ in memory.told()] == ["after"]
    other.up()
    assert [text for text, _ in other.told()] == ["after"]
    other.manager.close()
    memory.manager.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_an_erasure_that_is_not_complete_is_obeyed_by_every_verb(memory: Memory) -> None:
    """The database answers again and still has the rows: no verb shows them."""
    memory.say("stored")
    memory.manager._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]
    memory.down()
    assert memory.manager.delete_user("ann") is Deletion.ACCEPTED
    memory.up()
    memory.say("after")
    assert memory.told() == [("after", Source.DATABASE)]
    assert memory.found("stored after") == {"after"}
    assert [one.used for one in memory.manager.tool_statistics("ann")] == [1]
    assert [json.loads(line)["user_message"] for line in memory.manager.export_user("ann")] == ["after"]


def test_what_can_be_stored_nowhere_is_rejected(memory: Memory) -> None:
    """No False True: a text that no database takes is refused by its field."""
    result = memory.manager.store_conversation("ann", "nul \0", "x")
    assert (result.outcome, result.reason) == (
        StoreOutcome.REJECTED,
        "invalid: user_message: must not contain NUL characters",
    )
    assert memory.manager.store_conversation_safe("ann", "nul \0", "x") is False


def test_a_full_spool_rejects_with_its_reason(tmp_path: Path, unattached: object) -> None:
    """No database and no room: rejected, and health says so."""
    memory = Memory(
        MemoryConfig(
            database_url=f"sqlite:///{tmp_path}/memory.db",
            spool_directory=str(tmp_path / "spool"),
            spool_max_bytes=1 << 20,
        )
    )
    memory.down()
    results = [memory.manager.store_conversation("ann", "x" * 100_000, "y") for _ in range(20)]
    outcomes = [one.outcome for one in results]
    kept = outcomes.count(StoreOutcome.SPOOLED)
    assert outcomes == [StoreOutcome.SPOOLED] * kept + [StoreOutcome.REJECTED] * (20 - kept)
    assert results[-1].reason.startswith("spool_full: ")
    assert len(memory.manager.history("ann", 20)) == kept > 3
    memory.manager.close()


def test_tools_and_export_include_what_waits(memory: Memory) -> None:
    """Statistics and export merge the spool; an export is oldest first, one JSON object a line."""
    calls = [ToolCall("c1", "search", True, 0.5), ToolCall("c2", "search", False, 1.5, "boom")]
    memory.manager.store_conversation("ann", "one", "1", ["search"], calls)
    memory.down()
    memory.manager.store_conversation("ann", "two", "2", ["search"], calls[:1])
    memory.store.on = True
    memory.manager.error_handler.get_circuit_breaker("database").reset()
    (tool,) = memory.manager.tool_statistics("ann")
    assert (tool.tool, tool.used, tool.calls, tool.failures, tool.duration_max_s) == ("search", 2, 3, 1, 1.5)
    lines = [json.loads(line) for line in memory.manager.export_user("ann")]
    assert [(line["user_message"], len(line["tool_calls"])) for line in lines] == [("one", 2), ("two", 1)]


def test_health_has_the_guides_keys(memory: Memory) -> None:
    """`is_healthy`, `error_metrics`, `circuit_breakers`, and what spool and replay do."""
    health = memory.manager.get_system_health()
    assert health["is_healthy"] is True
    assert set(health["circuit_breakers"]) == {"database", "cache"}
    assert health["memory"]["spool"]["pending"] == 0
    json.dumps(health)
    memory.down()
    for number in range(6):
        memory.say(str(number))
    health = memory.manager.get_system_health()
    assert health["is_healthy"] is False
    assert health["memory"]["spool"]["pending"] == 6
    assert health["circuit_breakers"]["database"]["is_open"] is True


@pytest.mark.fault("B4")
def test_b4_a_forked_child_goes_on(memory: Memory) -> None:
    """After a fork both sides store and read, in an outage too, and everything arrives once."""
    memory.say("before")
    memory.down()
    memory.say("spooled")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert memory.say("child") is StoreOutcome.SPOOLED
            assert {text for text, _ in memory.told()} >= {"spooled", "child"}
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert memory.say("parent") is StoreOutcome.SPOOLED
    memory.up()
    assert memory.manager.flush(10.0)
    assert sorted(text for text, _ in memory.told()) == ["before", "child", "parent", "spooled"]


def test_a_closed_manager_says_so(memory: Memory) -> None:
    """After `close` a call is the caller's mistake."""
    memory.manager.close()
    with pytest.raises(ClosedError):
        memory.say("too late")


@pytest.mark.parametrize("odd", ["\udc80 half a pair", "nul\0inside", "", "x" * 5_000, 42, None])
def test_no_verb_takes_what_can_be_no_users_id(config: MemoryConfig, odd: Any) -> None:
    """Each verb says so at once, whether anything waits in the spool or not; a store is rejected."""
    with EnhancedMemoryLayerManager(config) as manager:
        assert not manager.store_conversation_safe(odd, "question", "answer")
        for verb in (
            lambda: manager.retrieve_context_safe("question", odd),
            lambda: manager.history(odd),
            lambda: list(manager.export_user(odd)),
            lambda: manager.delete_user(odd),
        ):
            with pytest.raises(RecordError, match="user_id"):
                verb()
