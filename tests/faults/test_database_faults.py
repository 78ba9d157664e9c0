"""Group G: the database is down, hung, restarted, cut, contended, full, or has another schema."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.chaos import Chaos, Moment
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.talkers import memory, programs, read, wait_until
from tests.servers import Postgres, room
from workers.memory.config import MemoryConfig
from workers.memory.records import Deletion, Source, StoreOutcome
from workers.memory.spool import Spool

pytestmark = pytest.mark.timeout(PATIENCE_S)

WRITERS: Final = 8
KILLS: Final = effort(10, 100)
LIMIT_S: Final = 1.0
REFUSING: Final = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('tries') <= {times} THEN RAISE SQLSTATE '{state}'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON memory_conversations FOR EACH ROW EXECUTE FUNCTION refuse();
"""


class Room:
    """A manager over an empty database of a private PostgreSQL, maybe behind the fault proxy."""

    def __init__(self, server: Postgres, folder: Path, proxy: Chaos | None = None) -> None:
        self.server, self.name = server, server.database()
        url = server.through(proxy, self.name) if proxy else server.url(self.name)
        self.config = MemoryConfig(
            database_url=url, spool_directory=str(folder / "spool"), database_timeout_s=LIMIT_S, pool_size=2
        )
        self.manager = memory(self.config)

    def say(self, text: str, user: str = "ann") -> StoreOutcome:
        """Store an exchange."""
        return self.manager.store_conversation(user, text, "x", ["search"]).outcome

    def ready(self) -> None:
        """The tables are there, and a connection is."""
        assert self.say("ready", "nobody") is StoreOutcome.STORED

    def rows(self) -> list[str]:
        """What ann said, as the database has it, in the order of the ids."""
        found = self.server.execute(
            "SELECT user_message FROM memory_conversations WHERE user_id = 'ann' ORDER BY id", self.name
        )
        return [str(row[0]) for row in found]

    def sql(self, text: str) -> list[tuple[object, ...]]:
        """Run SQL as superuser."""
        return self.server.execute(text, self.name)

    @property
    def failures(self) -> int:
        """What the breaker has counted in a row."""
        return self.manager.error_handler.get_circuit_breaker("database").state.failure_count

    def memory(self) -> dict[str, Any]:
        """What health tells of spool and replay."""
        told: dict[str, Any] = self.manager.get_system_health()["memory"]
        return told


@pytest.fixture
def place(postgres: Postgres, tmp_path: Path) -> Iterator[Room]:
    """A manager straight at the server."""
    made = Room(postgres, tmp_path)
    yield made
    made.manager.close()


@pytest.fixture
def behind(postgres: Postgres, postgres_proxy: Chaos, tmp_path: Path) -> Iterator[Room]:
    """A manager behind the fault proxy."""
    made = Room(postgres, tmp_path, postgres_proxy)
    yield made
    postgres_proxy.heal()
    made.manager.close()


@pytest.mark.fault("G1")
def test_g1_down_and_up_again(place: Room, tmp_path: Path) -> None:
    """Killed: writes are on the disk before they are acknowledged, reads are stale and say so."""
    place.say("before")
    place.manager.history("ann")
    place.server.kill()
    assert [place.say(f"during {number}") for number in range(8)] == [StoreOutcome.SPOOLED] * 8
    assert place.manager.error_handler.get_circuit_breaker("database").state.is_open
    # Another process sees them, and therefore the disk has them.
    assert len(Spool(str(tmp_path / "spool"), 1 << 30).next_batch(100)) == 8
    found = place.manager.history("ann")
    assert [one.source for one in found] == [Source.SPOOL] * 8 + [Source.CACHE]
    assert found[-1].age_s is not None
    found = place.manager.retrieve_context_safe("during", "ann")
    assert {one.conversation.user_message for one in found} == {f"during {number}" for number in range(8)}
    place.server.start()
    assert place.manager.flush(20.0)
    assert place.rows() == ["before", *(f"during {number}" for number in range(8))]
    assert {one.source for one in place.manager.history("ann")} == {Source.DATABASE}


@pytest.mark.fault("G2")
def test_g2_hung_costs_the_time_limit_and_is_stored_once(place: Room) -> None:
    """Frozen: each call ends within its limit until the breaker is open, then at once; thawed: once each."""
    place.ready()
    place.server.freeze()
    took = []
    for number in range(8):
        began = time.monotonic()
        assert place.say(str(number)) is StoreOutcome.SPOOLED
        took.append(time.monotonic() - began)
    assert max(took) < 2.5 * LIMIT_S
    assert min(took[-2:]) < 0.3
    place.server.thaw()
    assert place.manager.flush(20.0)
    assert place.rows() == [str(number) for number in range(8)]


@pytest.mark.fault("G5")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_g5_cut_in_the_commit_of_a_store_and_of_replay(
    behind: Room, postgres_proxy: Chaos, moment: Moment
) -> None:
    """Whether it was applied or not, and both times: spooled, replayed, one row."""
    behind.ready()
    postgres_proxy.cut_commit(moment, times=2)
    assert behind.say("once") is StoreOutcome.SPOOLED
    assert behind.manager.flush(20.0)
    assert postgres_proxy.cuts == 2
    assert behind.rows() == ["once"]
    assert [one.used for one in behind.manager.tool_statistics("ann")] == [1]


@pytest.mark.fault("G4")
@pytest.mark.fault("G5")
@pytest.mark.fault("L6")
def test_g4_eight_writers_while_the_server_is_killed_in_the_middle_of_it(
    postgres: Postgres, tmp_path: Path
) -> None:
    """Killed, or stopped at once, ten times under load: what was acknowledged is there, once, and no more."""
    name = postgres.database()
    given: dict[str, Any] = {
        "database_url": postgres.url(name),
        "spool_directory": str(tmp_path / "spool"),
        "database_timeout_s": 5.0,
        "pool_size": 2,
        "replay_rate_per_s": 5000.0,
    }
    with memory(MemoryConfig(**given)) as manager:
        assert manager.store_conversation_safe("nobody", "ready", "x")
    ledgers = [tmp_path / f"ledger{number}" for number in range(WRITERS)]
    order = {"play": "talk", "config": given, "stop": str(tmp_path / "stop")}
    orders = [order | {"ledger": str(path), "user": f"u{number}"} for number, path in enumerate(ledgers)]
    with programs(orders) as writers:
        for number in range(KILLS):
            _more(ledgers, "stored", 20)
            if number % 2:
                postgres.kill()
            else:
                postgres.stop(signal.SIGQUIT)
            _more(ledgers, "spooled", 10)
            postgres.start()
        (tmp_path / "stop").touch()
        ended = [(one.wait(30.0), one.communicate()[1]) for one in writers]
    assert [code for code, _ in ended] == [0] * WRITERS, ended
    with memory(MemoryConfig(**given)) as manager:
        assert manager.flush(60.0)
        assert manager.get_system_health()["memory"]["spool"]["pending"] == 0
    lines = read(ledgers)
    assert {line[0] for line in lines} == {"stored", "spooled"}
    acknowledged = [line[1] for line in lines]
    rows = [str(row[0]) for row in postgres.execute(
        "SELECT id FROM memory_conversations WHERE user_id <> 'nobody'", name
    )]  # fmt: skip
    assert len(rows) == len(set(rows))
    assert set(rows) == set(acknowledged)
    assert len(acknowledged) == len(set(acknowledged))
    tools = postgres.execute("SELECT count(*) FROM memory_tools_used", name)
    assert tools == [(len(rows),)]


def _more(ledgers: list[Path], outcome: str, more: int) -> None:
    """Wait until so many more were acknowledged so."""

    def count() -> int:
        return sum(line[0] == outcome for line in read(ledgers))

    before = count()
    wait_until(f"nothing is {outcome}", lambda: count() > before + more)


@pytest.mark.fault("G8")
@pytest.mark.parametrize("state", ["40P01", "40001", "55P03"])
def test_g8_who_was_in_the_way_is_tried_again(place: Room, state: str) -> None:
    """Three times at most, then it is spooled; never a failure of the database."""
    place.ready()
    place.sql(REFUSING.format(times=3, state=state))
    assert place.say("patient") is StoreOutcome.STORED
    assert place.sql("SELECT last_value FROM tries") == [(4,)]
    place.sql("ALTER SEQUENCE tries RESTART")
    place.manager._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]
    place.sql("CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
              f"$$ BEGIN PERFORM nextval('tries'); RAISE SQLSTATE '{state}'; END $$")  # fmt: skip
    assert place.say("too patient") is StoreOutcome.SPOOLED
    assert place.sql("SELECT last_value FROM tries") == [(4,)]
    assert place.failures == 0
    place.sql("DROP TRIGGER refuse ON memory_conversations")
    del place.manager._backing.replayer.take_lease
    assert place.manager.flush(20.0)
    assert place.rows() == ["patient", "too patient"]


@pytest.mark.fault("G8")
def test_g8_a_statement_that_takes_too_long_counts(place: Room) -> None:
    """57014 is no matter of luck: it is not tried again at once, and the breaker counts it."""
    place.ready()
    place.sql(REFUSING.format(times=1, state="57014"))
    assert place.say("slow") is StoreOutcome.SPOOLED
    assert place.manager.flush(20.0)
    assert place.rows() == ["slow"]
    metrics = place.manager.get_system_health()["error_metrics"]
    assert sum(one["error_count"] for one in metrics.values()) == 1


def _outage(place: Room, texts: list[str], change: str) -> None:
    """Say it all while the database is away, and change the schema before replay sees it again."""
    place.ready()
    place.manager._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]
    place.server.kill()
    assert [place.say(text) for text in texts] == [StoreOutcome.SPOOLED] * len(texts)
    place.server.start()
    place.sql(change)
    del place.manager._backing.replayer.take_lease
    place.manager.flush(20.0)


@pytest.mark.fault("G9")
def test_g9_a_row_that_is_refused_is_set_aside_and_the_rest_goes_on(place: Room) -> None:
    """A constraint that came meanwhile: the one row is kept, visible, with its reason, and still readable."""
    _outage(
        place,
        ["one", "bad", "three"],
        "ALTER TABLE memory_conversations ADD CONSTRAINT manners CHECK (user_message <> 'bad')",
    )
    wait_until("the rest is stored", lambda: place.rows() == ["one", "three"])
    (aside,) = place.manager._backing.spool.quarantined()
    assert aside.reason.startswith("sqlstate 23514: ")
    assert place.memory()["spool"]["quarantined"] == 1
    assert [one.conversation.user_message for one in place.manager.history("ann")] == ["three", "bad", "one"]


@pytest.mark.fault("G15")
def test_g15_a_constraint_sets_aside_and_loses_nothing(place: Room) -> None:
    """Values that the new tables do not take are kept with their reason, and are taken when they do."""
    change = "ADD CONSTRAINT mood CHECK (user_id <> 'ann')"
    _outage(place, ["one", "two"], f"ALTER TABLE memory_conversations {change}")
    wait_until("set aside", lambda: place.memory()["spool"]["quarantined"] == 2)
    assert not place.manager.get_system_health()["is_healthy"]
    spool = place.manager._backing.spool
    assert {one.reason[:15] for one in spool.quarantined()} == {"sqlstate 23514:"}
    place.sql("ALTER TABLE memory_conversations DROP CONSTRAINT mood")
    assert spool.release() == 2
    assert place.manager.flush(20.0)
    assert place.rows() == ["one", "two"]


@pytest.mark.fault("G15")
def test_g15_tables_of_another_form_block_and_lose_nothing(place: Room) -> None:
    """No value is to blame: nothing is set aside, and everything arrives when the tables are mended."""
    change = "RENAME COLUMN bot_response TO answer"
    _outage(place, ["one", "two"], f"ALTER TABLE memory_conversations {change}")
    wait_until("blocked", lambda: "UndefinedColumn" in place.memory()["replay"]["last_error"])
    assert (place.memory()["spool"]["pending"], place.memory()["spool"]["quarantined"]) == (2, 0)
    place.sql("ALTER TABLE memory_conversations RENAME COLUMN answer TO bot_response")
    assert place.manager.flush(20.0)
    assert place.rows() == ["one", "two"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Postgres]:
    """A server with three connections, and a user that needs a password."""
    with room() as folder:
        server = Postgres(folder).initialise()
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
        server.options = {"max_connections": "3", "superuser_reserved_connections": "0"}
        server.start()
        server.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        yield server
        server.kill()


@pytest.mark.fault("G10")
def test_g10_no_connection_is_left(small: Postgres, tmp_path: Path) -> None:
    """53300: spooled, counted, and stored as soon as somebody lets go."""
    place = Room(small, tmp_path)
    place.ready()
    place.manager._store.close()
    held = [psycopg.connect(host=str(small.directory), user="postgres") for _ in range(3)]
    assert place.say("patient") is StoreOutcome.SPOOLED
    assert place.failures == 1
    for one in held:
        one.close()
    assert place.manager.flush(20.0)
    assert place.rows() == ["patient"]
    place.manager.close()


@pytest.mark.fault("G10")
@pytest.mark.fault("S19")
def test_g10_a_wrong_password_is_not_tried_in_a_loop(
    small: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """28P01: spooled; one try a call, replay ever more rarely, no breaker counts it, nobody tells it."""
    caplog.set_level(logging.DEBUG)
    url = small.url(user="locked").replace("locked@", "locked:canary-4711@")
    config = MemoryConfig(database_url=url, spool_directory=str(tmp_path / "spool"))
    manager = memory(config)
    for number in range(3):
        assert manager.store_conversation("ann", str(number), "x").outcome is StoreOutcome.SPOOLED
    assert not manager.error_handler.get_circuit_breaker("database").state.failure_count

    def tries() -> int:
        return sum("password authentication failed" in line for line in small.log)

    wait_until("replay tries", lambda: tries() >= 5)
    began, before = time.monotonic(), tries()
    time.sleep(1.0)
    assert tries() - before <= 5 * (time.monotonic() - began)
    told = [caplog.text, repr(config), str(manager.get_system_health()), *small.log]
    assert "canary-4711" not in "".join(told)
    manager.close()
    assert sum(manager.error_handler.get_error_metrics()[kind].error_count
               for kind in manager.error_handler.get_error_metrics()) == 3  # fmt: skip


@pytest.mark.fault("S14")
def test_s14_a_user_deleted_in_the_outage_never_reappears(place: Room, tmp_path: Path) -> None:
    """Deleted while PostgreSQL is dead: gone for every reader at once, later from every table and file."""
    place.say("canary-stored")
    place.manager.history("ann")
    place.manager.retrieve_context_safe("canary", "ann")
    other = memory(place.config)
    other.history("ann")
    place.server.kill()
    place.say("canary-spooled")
    assert place.manager.delete_user("ann") is Deletion.ACCEPTED
    for each in (place.manager, other):
        assert each.history("ann") == each.retrieve_context_safe("canary", "ann") == []
    place.server.start()
    assert place.manager.flush(20.0)
    assert place.rows() == []
    for each in (place.manager, other):
        assert each.history("ann") == each.retrieve_context_safe("canary", "ann") == []
        assert list(each.export_user("ann")) == []
        each.close()
    left = [path for path in (tmp_path / "spool").iterdir() if b"canary" in path.read_bytes()]
    assert left == []
