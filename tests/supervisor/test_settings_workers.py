"""The tables of managed workers: what they become, and every mistake by its path."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import ConfigurationError
from supervisor.settings import parse
from supervisor.settings_workers import WORKER_KEYS, WORKER_NULLABLE, WorkerTable

WHOLE = """
[workers.web]
target = "shop.serve:App.run"
count = 3
args = ["eu", 5, 0.5, true]
restart = "transient"
max_restarts = 2
restart_window_s = 30
beyond = "escalate"
backoff_s = 1
backoff_max_s = 20
backoff_jitter = 0
start_s = 2.5
stop_timeout_s = 4
memory_max = "512M"
heartbeat_timeout_s = 15
environment = { MODE = "fast", EMPTY = "" }
directory = "/srv/shop"
autostart = false
log_level = "debug"
pool_max = 8
[workers.a-first]
target = "mail:send"
memory_max = 2000000
"""


def mistakes(text: str) -> tuple[str, ...]:
    """The mistakes of a file called `f`."""
    with pytest.raises(ConfigurationError) as found:
        parse(text, "f")
    return found.value.errors


def test_tables_become_settings_in_the_order_of_the_file() -> None:
    """The order is the one of starting, so it is not sorted; what is not said stands at its default."""
    assert parse(WHOLE, "f").workers == (
        WorkerTable(
            "web",
            "shop.serve:App.run",
            count=3,
            args=("eu", 5, 0.5, True),
            restart="transient",
            max_restarts=2,
            restart_window_s=30,
            beyond="escalate",
            backoff_s=1,
            backoff_max_s=20,
            backoff_jitter=0,
            start_s=2.5,
            stop_timeout_s=4,
            memory_max=512 << 20,
            heartbeat_timeout_s=15,
            environment=(("MODE", "fast"), ("EMPTY", "")),
            directory="/srv/shop",
            autostart=False,
            log_level="debug",
            pool_max=8,
        ),
        WorkerTable("a-first", "mail:send", memory_max=2_000_000),
    )


def test_titles() -> None:
    """One process has the name itself, several are numbered from 1."""
    assert WorkerTable("web", "m:f").titles() == ("web",)
    assert WorkerTable("web", "m:f", count=3).titles() == ("web:1", "web:2", "web:3")


@pytest.mark.parametrize(("text", "size"), [("1M", 1 << 20), ("3G", 3 << 30), ("2048K", 2 << 20)])
def test_sizes_with_units(text: str, size: int) -> None:
    """Units are powers of 1,024."""
    (table,) = parse(f'[workers.x]\ntarget = "m:f"\nmemory_max = "{text}"', "f").workers
    assert table.memory_max == size


def test_every_mistake_is_named_by_its_path() -> None:
    """One pass over the file finds them all."""
    text = """
[workers.web]
target = "no.colon"
count = 0
args = [1, [2], nan, 9223372036854775808]
restart = "always"
max_restarts = 1.5
beyond = "panic"
backoff_jitter = 2
memory_max = "12 elephants"
heartbeat_timeout_s = "never"
environment = { "a=b" = "x", OK = 5 }
directory = "relative"
autostart = "yes"
log_level = "loud"
colour = "red"
[workers.all]
target = "m:f"
[workers."a:b"]
target = "m:f"
[workers.none]
[workers.less]
target = "m:f"
backoff_s = 5
backoff_max_s = 1
"""
    found = mistakes("workers.five = 5\n" + text)
    named = "must be 1 to 64 of [A-Za-z0-9_.-], begin with a letter or digit, and not be all or prober, got"
    assert list(found) == [
        f"f: {error}"
        for error in (
            "workers.five: must be a table, as in [workers.five], got 5",
            "workers.web.target: must be like \"package.module:callable\", got 'no.colon'",
            "workers.web.count: must be >= 1, got 0",
            "workers.web.args[1]: must be text, a finite number, true or false, got [2]",
            "workers.web.args[2]: must be text, a finite number, true or false, got nan",
            "workers.web.args[3]: must be a number of 64 bits",
            "workers.web.restart: must be one of permanent, transient, temporary, got 'always'",
            "workers.web.max_restarts: must be a whole number, got 1.5",
            "workers.web.beyond: must be one of give_up, escalate, got 'panic'",
            "workers.web.backoff_jitter: must be <= 1, got 2",
            'workers.web.memory_max: must be a number of bytes, or like "512M" or "2G", got \'12 elephants\'',
            "workers.web.heartbeat_timeout_s: must be a number, got 'never'",
            'workers.web.environment."a=b": must be a name without "=" and zero bytes',
            "workers.web.environment.OK: must be text without zero bytes, got int",
            "workers.web.directory: must be an absolute path, got 'relative'",
            "workers.web.autostart: must be true or false, got 'yes'",
            "workers.web.log_level: must be one of , debug, info, warning, error, got 'loud'",
            f"workers.web.colour: unknown key; known are {', '.join(WORKER_KEYS)}",
            f"workers.all: {named} 'all'",
            f"workers.\"a:b\": {named} 'a:b'",
            'workers.none.target: is missing: it says what to call, like "package.module:callable"',
            "workers.less.backoff_max_s: must be >= backoff_s, which is 5, got 1",
        )
    ]


def test_processes_are_limited_in_all() -> None:
    """Tables that are good by themselves may be too many together."""
    text = "".join(f'[workers.w{number}]\ntarget = "m:f"\ncount = 256\n' for number in range(5))
    assert mistakes(text) == ("f: workers: must be at most 1024 processes in all, got 1280",)


def test_off_where_it_may_be() -> None:
    """Exactly the keys that may be None."""
    text = "".join(f'{key} = "off"\n' for key in WORKER_NULLABLE)
    assert parse(f'[workers.x]\ntarget = "m:f"\n{text}', "f").workers == (WorkerTable("x", "m:f"),)
    assert len(mistakes('[workers.x]\ntarget = "m:f"\nstop_timeout_s = "off"')) == 1


def test_what_people_are_shown() -> None:
    """All keys as JSON values; no password of a URL and no variable that is called a secret."""
    text = """
[workers.web]
target = "m:f"
args = ["postgresql://u:pw@host/db", 5]
environment = { URL = "redis://:pw@h:1/0", API_TOKEN = "x", MODE = "fast" }
"""
    plain = json.loads(json.dumps(parse(text, "f").to_json()))["workers"]["web"]
    assert set(plain) == set(WORKER_KEYS)
    assert plain["args"] == ["postgresql://u:***@host/db", 5]
    assert plain["environment"] == dict.fromkeys(("URL", "API_TOKEN", "MODE"), "***")


def outcome(text: str) -> WorkerTable | tuple[str, ...]:
    """The only worker's table, or the mistakes."""
    try:
        (table,) = parse(text, "f").workers
    except ConfigurationError as error:
        return error.errors
    return table


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text("abM:.15 ", max_size=5)


@given(st.sampled_from(WORKER_KEYS), values | st.lists(values, max_size=2))
def test_any_value_of_any_key_is_good_or_named(key: str, value: object) -> None:
    """A value of any kind is taken or refused under its own path."""
    text = json.dumps("none" if value is None else value).replace("NaN", "nan").replace("Infinity", "inf")
    text = text.replace("null", '"none"')
    target = "" if key == "target" else 'target = "m:f"\n'
    found = outcome(f"[workers.x]\n{target}{key} = {text}\n")
    if isinstance(found, WorkerTable):
        json.dumps(found.to_json(), allow_nan=False)
    else:
        assert all(f"workers.x.{key}" in one or "backoff_max_s" in one for one in found)


def test_a_mistake_names_no_secret() -> None:
    """It goes to the log and to health: neither the password of a URL nor a value of the environment."""
    text = '[workers.web]\ntarget = "redis://u:s3cret@h"\nenvironment = { A = ["s3cret"] }\nrestart = "a://u:s3cret@h"\n'
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "f")
    assert len(caught.value.errors) == 3
    assert "s3cret" not in str(caught.value)
    assert "u:***@h" in str(caught.value)


def test_an_environment_as_others_write_it_is_not_repeated() -> None:
    """As text, the whole of it may be secrets."""
    with pytest.raises(ConfigurationError) as caught:
        parse('[workers.web]\ntarget = "a:b"\nenvironment = "DB_PASSWORD=s3cret"\n', "f")
    assert caught.value.errors == ('f: workers.web.environment: must be like { NAME = "value" }, got str',)


@pytest.mark.parametrize(
    "more",
    [
        'args = ["--password", "s3cret"]',
        'args = ["--db-password=s3cret"]',
        'args = ["host=db password=s3cret"]',
        'environment = { MYSQL_PWD = "s3cret" }',
        'environment = { SENTRY_DSN = "https://s3cret@example/1" }',
        'environment = { OPTIONS = "user=app password=s3cret" }',
    ],
)
def test_a_secret_that_can_be_told_is_not_shown(more: str) -> None:
    """Whoever may ask may see the configuration in force, not what it lets a worker do."""
    (table,) = parse(f'[workers.web]\ntarget = "a:b"\n{more}\n', "f").workers
    assert "s3cret" not in json.dumps(table.to_json())
