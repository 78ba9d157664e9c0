"""Settings come from arguments, variables or a file; every wrong one is named, and no password is shown."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from workers.errors import MemoryConfigError
from workers.memory.config import MemoryConfig, shown_url


def test_without_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One SQLite file in the user's data folder, a cache in the process, and nothing is made."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    config = MemoryConfig()
    assert config.database_url == f"sqlite+pysqlite:///{tmp_path}/breakerd/memory.db"
    assert config.cache_url is None
    assert Path(config.spool_directory).parent == tmp_path / "breakerd"
    assert not list(tmp_path.iterdir())


def test_a_spool_belongs_to_one_database() -> None:
    """Another database has another spool; another password has not."""
    places = [
        MemoryConfig(database_url=url).spool_directory
        for url in ("postgresql://u:1@h/a", "postgres://u:2@h/a", "postgresql://u:1@h/b", "sqlite:///a")
    ]
    assert places[0] == places[1]
    assert len(set(places)) == 3


@pytest.mark.parametrize(
    "others",
    [
        ("?options=-csearch_path%3Dblue", "?options=-csearch_path%3Dgreen"),
        ("?options=-c%20search_path%3Dblue", "?options=--search-path%3Dgreen"),
        ("?service=blue", "?service=green"),
        ("?hostaddr=10.0.0.1", "?hostaddr=10.0.0.2"),
        ("?dbname=blue", "?dbname=green"),
    ],
)
def test_what_tells_databases_apart(others: tuple[str, str]) -> None:
    """Everything in a URL that leads elsewhere gives another spool, another breaker and another cache."""
    plain, one, other = (
        MemoryConfig(database_url=f"postgresql://u@h/a{more}") for more in ("", others[0], others[1])
    )
    for name in ("mark", "spool_directory", "database_breaker", "cache_namespace"):
        assert len({getattr(each, name) for each in (plain, one, other)}) == 3, name


def test_a_schema_is_part_of_the_mark() -> None:
    """However it is said; a password and a time limit are not."""
    url = "postgresql://u:1@h/a"
    tenants = [MemoryConfig(database_url=url, schema=one) for one in ("", "blue", "green")]
    assert len({one.mark for one in tenants}) == 3
    same = MemoryConfig(
        database_url="postgresql://u:2@h/a?options=-cstatement_timeout%3D7%20-csearch_path%3Dblue"
    )
    assert same.mark == tenants[1].mark
    prefixes = [MemoryConfig(database_url=url, cache_prefix=one).cache_namespace for one in ("", "a", "b")]
    assert len(set(prefixes)) == 3
    assert MemoryConfig(database_url=url, breaker="database").database_breaker == "database"


def test_a_copy_for_another_database_has_its_own_spool(tmp_path: Path) -> None:
    """`dataclasses.replace` does not bring one tenant's spool to another; a named one stays."""
    blue = MemoryConfig(database_url="postgresql://h/a", schema="blue")
    green = replace(blue, schema="green")
    assert green == MemoryConfig(database_url="postgresql://h/a", schema="green")
    assert green.spool_directory != blue.spool_directory
    assert replace(green, schema="blue") == blue
    named = MemoryConfig(database_url="postgresql://h/a", spool_directory=str(tmp_path / "spool"))
    assert replace(named, schema="green").spool_directory == str(tmp_path / "spool")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"schema": "blue"}, "only PostgreSQL has schemas"),
        ({"schema": "pg_blue", "database_url": "postgresql://h/a"}, "begin with pg_"),
        ({"schema": "b" * 64, "database_url": "postgresql://h/a"}, "at most 63 bytes"),
        ({"schema": "b\0", "database_url": "postgresql://h/a"}, "printable"),
        ({"database_url": "postgresql://h/a?ssl=disable"}, "knows no parameter 'ssl'"),
        ({"database_url": "postgresql://h/a?prepare_threshold=often"}, "prepare_threshold must be"),
        ({"cache_prefix": "a\nb"}, "cache_prefix"),
        ({"breaker": "a breaker"}, "breaker"),
        ({"cache_url": "redis://h:notaport"}, "is not a URL"),
        ({"cache_url": "rediss://h:99999/0"}, "is not a URL"),
        ({"cache_url": "redis://h/zero"}, "number of a database"),
        ({"cache_url": "redis://one:1,two:2/0"}, "name one server|is not a URL"),
        ({"cache_url": "redis://h/0?socket_timeout=soon"}, "is not a URL"),
        ({"cache_url": "redis+sentinel://a:1/mymaster"}, "Sentinel and Redis Cluster are not supported"),
        ({"cache_url": "rediss+cluster://a:1"}, "Sentinel and Redis Cluster are not supported"),
        ({"cache_url": "memcached://a"}, "must begin with redis://"),
        ({"cache_url": "unix://"}, "name one server"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given: dict[str, str], text: str) -> None:
    """Not at the first call, and never by sending records into quarantine."""
    with pytest.raises(MemoryConfigError, match=text):
        MemoryConfig(**given)  # type: ignore[arg-type]


def test_caches_of_other_names() -> None:
    """Valkey's own schemes are Redis's protocol."""
    urls = [
        MemoryConfig(cache_url=one).cache_url for one in ("valkey://h:1/2", "valkeys://u:p@h", "unix:///s")
    ]
    assert urls == ["redis://h:1/2", "rediss://u:p@h", "unix:///s"]


def test_the_urls_come_from_the_environment_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the guide says; an argument wins, and an empty cache URL is none."""
    monkeypatch.setenv("MEMORY_DATABASE_URL", "postgresql://db/shop")
    monkeypatch.setenv("MEMORY_CACHE_URL", "redis://cache/1")
    given = MemoryConfig()
    assert (given.database_url, given.cache_url) == ("postgresql+psycopg://db/shop", "redis://cache/1")
    assert given == MemoryConfig.from_environment()
    own = MemoryConfig(database_url="sqlite:////x.db", cache_url="")
    assert (own.database_url, own.cache_url) == ("sqlite+pysqlite:////x.db", None)


def test_mistyped_variables() -> None:
    """A variable that is nearly one of ours is an error; other programs' variables are not."""
    with pytest.raises(MemoryConfigError) as caught:
        MemoryConfig.from_environment({"MEMORY_POOLSIZE": "7", "MEMORY_CACHE_TIMEOUT": "1"})
    assert caught.value.problems == (
        "MEMORY_POOLSIZE: is unknown; MEMORY_POOL_SIZE is meant?",
        "MEMORY_CACHE_TIMEOUT: is unknown; MEMORY_CACHE_TIMEOUT_S is meant?",
    )
    others = {
        "MEMORY_LIMIT": "1",
        "MEMORY_SERVICE_HOST": "h",
        "MEMORY_PORT_80_TCP": "x",
        "XMEMORY_POOLSIZE": "",
    }
    MemoryConfig.from_environment(others)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only who names no place needs one, and is told so."""
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    program = (
        "import pwd, sys; pwd.getpwuid = lambda uid: {}[uid]\n"
        "from workers.memory.config import MemoryConfig; from workers.errors import MemoryConfigError\n"
        "from workers.memory.spool_places import places_of, strangers\n"
        "named = MemoryConfig(database_url='postgresql://db/a', spool_directory=sys.argv[1])\n"
        "assert places_of(named) == [sys.argv[1]]; assert list(strangers([named])) == []\n"
        "try: MemoryConfig()\n"
        "except MemoryConfigError as error: print(error)\n"
        "try: MemoryConfig(database_url='postgresql://db/a')\n"
        "except MemoryConfigError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    text = "this user has no home directory: name a place, or set XDG_DATA_HOME"
    assert (ran.stdout, ran.stderr) == (f"memory.database_url: {text}\nmemory.spool_directory: {text}\n", "")


def test_every_error_is_named_at_once() -> None:
    """Types, bounds and what does not fit together."""
    with pytest.raises(MemoryConfigError) as caught:
        MemoryConfig(pool_size=0, database_timeout_s="5", migrate=1, cache_max_entries=True)  # type: ignore[arg-type]
    assert caught.value.problems == (
        "memory.database_timeout_s: must be float, got str",
        "memory.migrate: must be bool, got int",
        "memory.cache_max_entries: must be int, got bool",
        "memory.pool_size: must be from 1 to 1000, got 0",
    )
    with pytest.raises(MemoryConfigError, match=r"soft_age_s: must be <= hard_age_s \(10\), got 20"):
        MemoryConfig(soft_age_s=20, hard_age_s=10)


@pytest.mark.parametrize(
    "url", ["mysql://u:hush@h/d", "sqlite://", "sqlite:///:memory:", "hush", "postgresql://h:hush/d"]
)
def test_a_database_that_is_not_ours(url: str) -> None:
    """Another database, or a file without a name, is refused without telling the URL."""
    with pytest.raises(MemoryConfigError, match="database_url") as caught:
        MemoryConfig(database_url=url)
    assert "hush" not in str(caught.value).replace("got 'hush'", "")


def test_from_variables() -> None:
    """Each setting has its variable; empty ones count as not set; errors name the variable."""
    given = {
        "MEMORY_POOL_SIZE": "7",
        "MEMORY_MIGRATE": "off",
        "MEMORY_SOFT_AGE_S": "1.5",
        "MEMORY_CACHE_URL": "",
    }
    config = MemoryConfig.from_environment(given)
    assert (config.pool_size, config.migrate, config.soft_age_s, config.cache_url) == (7, False, 1.5, None)
    with pytest.raises(MemoryConfigError) as caught:
        MemoryConfig.from_environment(
            {"MEMORY_POOL_SIZE": "x", "MEMORY_MIGRATE": "maybe", "MEMORY_SOFT_AGE_S": "-1"}
        )
    assert caught.value.problems == (
        "MEMORY_MIGRATE: must be true or false, got 'maybe'",
        "MEMORY_POOL_SIZE: must be a whole number, got 'x'",
        "MEMORY_SOFT_AGE_S: must be from 0 to 2.592e+06, got -1",
    )


def test_from_a_file(tmp_path: Path) -> None:
    """One table of a TOML file; unknown keys, bad syntax and a missing file are told with the file's name."""
    file = tmp_path / "app.toml"
    file.write_text('[memory]\npool_size = 3\ndatabase_url = "sqlite:///x.db"\n')
    assert MemoryConfig.from_toml(file).pool_size == 3
    with pytest.raises(MemoryConfigError, match=r"has no table \[memry\]; memory is meant\?"):
        MemoryConfig.from_toml(file, "memry")
    file.write_text("[memory]\npool_sice = 3\npool_size = 0\n")
    with pytest.raises(MemoryConfigError) as caught:
        MemoryConfig.from_toml(file)
    assert caught.value.problems == (
        f"{file}: memory.pool_sice: is unknown",
        f"{file}: memory.pool_size: must be from 1 to 1000, got 0",
    )
    for content in ("memory = 3", "[memory", "\xff"):
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(MemoryConfigError, match=r"app\.toml"):
            MemoryConfig.from_toml(file)
    with pytest.raises(MemoryConfigError, match="missing"):
        MemoryConfig.from_toml(tmp_path / "missing.toml")


def test_secrets_are_read_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`env:` and `file:` name where a URL is; the text of a configuration has no password."""
    (tmp_path / "url").write_text("postgresql://ann:hush@db/app?sslpassword=hush\n")
    monkeypatch.setenv("CACHE", "redis://:hush@cache/0?password=hush")
    config = MemoryConfig(database_url=f"file:{tmp_path / 'url'}", cache_url="env:CACHE")
    assert "ann:hush@db" in config.database_url
    assert config.cache_url is not None
    assert "hush" in config.cache_url
    assert "hush" not in repr(config) + str(config) + f"{config}"
    assert shown_url(config.database_url) == "postgresql+psycopg://ann:***@db/app"
    with pytest.raises(MemoryConfigError) as caught:
        MemoryConfig(database_url="env:NOT_THERE", cache_url=f"file:{tmp_path}/none")
    assert [line.partition(" ")[0] for line in caught.value.problems] == [
        "memory.database_url:",
        "memory.cache_url:",
    ]
