"""Settings come from arguments, variables or a file; every wrong one is named, and no password is shown."""

from __future__ import annotations

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
    assert MemoryConfig.from_toml(file, "other") == MemoryConfig()
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
