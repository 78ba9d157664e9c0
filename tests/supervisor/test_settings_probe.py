"""`[breakers.NAME.probe]`: every mistake named by its path, and no secret in any of the sentences."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.vocabulary import BreakerSettings
from supervisor.errors import ConfigurationError
from supervisor.messages import ProbeRule, ProbesConfigured
from supervisor.settings import BreakerTable, SupervisorSettings, parse
from supervisor.settings_probe import (
    EVERY_KEYS,
    KINDS,
    OWN_KEYS,
    PROBE_KEYS,
    TABLE_BYTES_MAX,
    ProbeTable,
)
from tests.supervisor.test_settings import _toml, values

CANARY: Final = "c4n4ry"
GOOD: Final[dict[str, dict[str, Any]]] = {
    "url": {
        "sqlalchemy": "postgresql://u@h/d",
        "redis": "redis://h:6379/0",
        "http": "https://h/health",
    },
    "address": {"tcp": "h:80"},
    "command": {"exec": ["/bin/true"]},
    "target": {"python": "shop.checks:alive"},
}


def probe(text: str) -> ProbeTable | None:
    """The probe of a file that has nothing else."""
    return parse(f"[breakers.x.probe]\n{text}", "f").breakers[0].probe


def mistakes(text: str) -> list[str]:
    """The mistakes of one probe, without the path that all have."""
    with pytest.raises(ConfigurationError) as found:
        probe(text)
    assert all(error.startswith("f: breakers.x.probe") for error in found.value.errors)
    return [error.removeprefix("f: breakers.x.probe").removeprefix(".") for error in found.value.errors]


def minimal(kind: str) -> str:
    """The least that a probe of this kind needs."""
    key = OWN_KEYS[kind][0]
    return f"kind = {json.dumps(kind)}\n{key} = {json.dumps(GOOD[key][kind])}\n"


def test_a_table_becomes_a_probe() -> None:
    """Every key of one kind, and what is not said at its default."""
    text = """
kind = "http"
url = "http://h:8080/up?deep=1"
status = [200, 204]
body = "fine"
interval_s = 1
interval_max_s = 30
timeout_s = 0.5
rise = 1
fall = 2
jitter = 0
preventive = true
"""
    assert probe(text) == ProbeTable(
        "http",
        url="http://h:8080/up?deep=1",
        status=(200, 204),
        body="fine",
        interval_s=1,
        interval_max_s=30,
        timeout_s=0.5,
        rise=1,
        fall=2,
        jitter=0,
        preventive=True,
    )
    assert probe(minimal("redis")) == ProbeTable("redis", url="redis://h:6379/0")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_needs_one_key_and_refuses_those_of_others(kind: str) -> None:
    """A key that would have no effect is a mistake, and the sentence says for whom it is."""
    assert probe(minimal(kind)) is not None
    assert mistakes(f'kind = "{kind}"') == [
        f"{OWN_KEYS[kind][0]}: is missing: a probe of kind {kind} needs it"
    ]
    for other in KINDS:
        key = OWN_KEYS[other][-1]
        if key not in OWN_KEYS[kind]:
            (found,) = mistakes(minimal(kind) + f"{key} = 1")
            assert found.startswith(f"{key}: is not used by this kind of probe; it is for ")
            assert other in found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "kind: is missing: one of sqlalchemy, redis, tcp, http, exec, python"),
        ("kind = 'ping'", "kind: must be one of sqlalchemy, redis, tcp, http, exec, python, got 'ping'"),
        ("kind = 5", "kind: must be one of sqlalchemy, redis, tcp, http, exec, python, got 5"),
        ("kind = 'tcp'\naddress = 'h'", 'address: must be "HOST:PORT" or "unix:/PATH", got \'h\''),
        (
            "kind = 'tcp'\naddress = 'h:70000'",
            'address: must be "HOST:PORT" or "unix:/PATH", got \'h:70000\'',
        ),
        ("kind = 'tcp'\naddress = 80", "address: must be text without zero bytes, got int"),
        (minimal("redis") + "interval_s = 0", "interval_s: must be >= 0.1, got 0"),
        (
            minimal("redis") + "interval_s = 9\ninterval_max_s = 8",
            "interval_max_s: must be >= interval_s, which is 9, got 8",
        ),
        (minimal("redis") + "rise = 1.5", "rise: must be a whole number, got 1.5"),
        (minimal("redis") + "preventive = 1", "preventive: must be true or false, got 1"),
        (minimal("http") + "status = [99, '200']", "status[0]: must be >= 100, got 99"),
        (minimal("http") + "status = 200", "status: must be a list of at least one, got int"),
        ("kind = 'exec'\ncommand = []", "command: must be a list of at least one, got list"),
        ("kind = 'exec'\ncommand = ['true']", "command[0]: must be an absolute path"),
        (
            "kind = 'python'\ntarget = 'os.getpid'",
            "target: must be like \"package.module:callable\", got 'os.getpid'",
        ),
        (minimal("sqlalchemy") + "statement = ' '", "statement: must not be empty"),
        (minimal("tcp") + "every_s = 5", "every_s: unknown key; known are kind, address, interval_s,"),
    ],
)
def test_mistakes(text: str, found: str) -> None:
    """What is wrong, by its path."""
    assert mistakes(text)[0].startswith(found)


def test_a_table_must_fit_into_a_message_to_a_prober() -> None:
    """The limit is on the whole."""
    words = json.dumps(["/bin/echo", "x" * TABLE_BYTES_MAX])
    (found,) = mistakes(f"kind = 'exec'\ncommand = {words}")
    assert found.startswith(f": must have at most {TABLE_BYTES_MAX} bytes, has ")


def test_a_probe_that_is_no_table() -> None:
    """`probe = true` means nothing."""
    with pytest.raises(ConfigurationError) as found:
        parse("[breakers.x]\nprobe = true", "f")
    assert found.value.errors == ("f: breakers.x.probe: must be a table, as in [breakers.x.probe], got True",)


def test_a_long_interval_is_its_own_maximum() -> None:
    """Who says only the interval means it."""
    found = probe(minimal("tcp") + "interval_s = 120")
    assert found == ProbeTable("tcp", address="h:80", interval_s=120, interval_max_s=120.0)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("sqlalchemy", f"postgresql//u:{CANARY}@h/d"),
        ("redis", f"http://:{CANARY}@h"),
        ("http", f"ftp://u:{CANARY}@h/"),
        ("tcp", f"redis://u:{CANARY}@h"),
    ],
)
def test_no_mistake_shows_what_may_be_secret(kind: str, url: str) -> None:
    """A URL that is wrong may hold a password all the same."""
    for text in (f"url = '{url}'", f"url = ['{url}']", f"address = '{url}'"):
        assert CANARY not in "".join(mistakes(f"kind = '{kind}'\n{text}"))


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        (ProbeTable("redis", url=f"redis://:{CANARY}@h/0"), {"url": "redis://:***@h/0"}),
        (ProbeTable("redis", url=f"redis://h/0?password={CANARY}&db=1"), {"url": "redis://h/0?password=***&db=1"}),
        (
            ProbeTable("sqlalchemy", url=f"postgresql://u:{CANARY}@h/d"),
            {"url": "postgresql://u:***@h/d", "statement": "SELECT 1"},
        ),
        (
            ProbeTable("http", url=f"https://u:{CANARY}@h/"),
            {"url": "https://u:***@h/", "status": [200], "body": ""},
        ),
        (
            ProbeTable("exec", command=("/bin/x", "--password", CANARY, f"--token={CANARY}", "-v")),
            {"command": ["/bin/x", "--password", "***", "--token=***", "-v"]},
        ),
        (ProbeTable("redis", url="env:CACHE_URL"), {"url": "env:CACHE_URL"}),
    ],
)  # fmt: skip
def test_what_people_see_has_no_password(table: ProbeTable, shown: dict[str, object]) -> None:
    """`config show` prints the keys of this kind, and of a URL what is no secret; the prober gets it all."""
    plain = json.loads(json.dumps(table.to_json()))
    assert plain == {"kind": table.kind, **shown, **{key: getattr(table, key) for key in EVERY_KEYS}}
    assert (CANARY in json.dumps(table.asked())) is (CANARY in str(table))


def test_what_the_engine_and_the_prober_are_told() -> None:
    """Rise, fall and patience for the one, where and how to ask for the other."""
    settings = parse(f"[breakers.x]\n[breakers.'shop/y'.probe]\n{minimal('tcp')}", "f")
    table = ProbeTable("tcp", address="h:80")
    assert settings.breakers == (
        BreakerTable("shop/y", BreakerSettings(), probe=table, decides=False),
        BreakerTable("x", BreakerSettings()),
    )
    assert settings.probes() == {"shop/y": table}
    assert settings.probes_configured() == ProbesConfigured(
        (ProbeRule("shop/y", 2, 3, False, 2.0 * (60.0 * 1.1 + 2.0 + 1.0), table.digest),)
    )
    assert table.asked() == {"kind": "tcp", "address": "h:80", "timeout_s": 2.0}
    assert settings.probe_processes == 2


def test_a_table_with_nothing_but_a_probe_leaves_the_settings_to_the_workers() -> None:
    """And whether health fails for it is said beside; with one setting more the file decides all of them."""
    text = f"[breakers.x]\ncritical = true\n[breakers.x.probe]\n{minimal('tcp')}"
    assert parse(text, "f").configured() == (("x", "", True),)
    assert list(parse(text, "f").to_json()["breakers"]["x"]) == ["critical", "probe"]
    decided = parse(text.replace("critical = true", "failure_threshold = 2"), "f")
    assert json.loads(decided.configured()[0][1])["failure_threshold"] == 2


def test_another_table_has_another_digest() -> None:
    """Whatever key differs."""
    one = ProbeTable("tcp", address="h:80")
    others = (ProbeTable("tcp", address="h:81"), ProbeTable("tcp", address="h:80", rise=3))
    assert one.digest == ProbeTable("tcp", address="h:80").digest
    assert len({one.digest, *(other.digest for other in others)}) == 3


@given(st.sampled_from(KINDS), st.sampled_from(PROBE_KEYS), values)
def test_any_value_of_any_key_is_good_or_named(kind: str, key: str, value: object) -> None:
    """A value of any kind is taken or refused under the path of its table."""
    first = OWN_KEYS[kind][0]
    lines = {"kind": json.dumps(kind), first: json.dumps(GOOD[first][kind]), key: _toml(value)}
    text = "".join(f"{name} = {line}\n" for name, line in lines.items())
    try:
        found: SupervisorSettings | tuple[str, ...] = parse(f"[breakers.x.probe]\n{text}", "f")
    except ConfigurationError as error:
        found = error.errors
    if isinstance(found, SupervisorSettings):
        assert json.dumps(found.to_json())
        assert found.probes()["x"].digest
    else:
        assert all(error.startswith("f: breakers.x.probe") for error in found)
