"""The configuration file: every mistake found, every one named by its path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.vocabulary import BreakerSettings, CountWindow
from supervisor.errors import ConfigurationError
from supervisor.settings import (
    FILE_MAX,
    NULLABLE,
    SECTIONS,
    BreakerTable,
    NamespaceTable,
    SupervisorSettings,
    load,
    parse,
)

WHOLE = """
[control]
commanders = ["user:deploy", "group:ops"]
connections_max = 100
[supervisor]
ring_slots = 1024
log_level = "debug"
log_format = "json"
[breakers."shop/database"]
failure_rate = "off"
slow_call_s = 2
slow_call_rate = 0.8
window = { calls = 50 }
critical = true
[breakers.cache]
[namespaces.shop]
users = ["deploy", "www-data"]
"""


def mistakes(text: str) -> tuple[str, ...]:
    """The mistakes of a file called `f`."""
    with pytest.raises(ConfigurationError) as found:
        parse(text, "f")
    return found.value.errors


def test_a_file_becomes_settings() -> None:
    """Every kind of table, with what is not said at its default."""
    database = BreakerSettings(
        failure_rate=None, slow_call_s=2, slow_call_rate=0.8, window=CountWindow(50), minimum_calls=20
    )
    assert parse(WHOLE, "f") == SupervisorSettings(
        commanders=("user:deploy", "group:ops"),
        connections_max=100,
        ring_slots=1024,
        log_level="debug",
        log_format="json",
        breakers=(
            BreakerTable("cache", BreakerSettings()),
            BreakerTable("shop/database", database, critical=True),
        ),
        namespaces=(NamespaceTable("shop", ("deploy", "www-data")),),
    )


def test_no_file_and_an_empty_file_are_the_defaults() -> None:
    """Nothing has to be configured."""
    assert load(None) == parse("", "f") == SupervisorSettings()


def test_a_log_has_one_of_two_forms() -> None:
    """Text or JSON."""
    assert mistakes('[supervisor]\nlog_format = "xml"') == (
        "f: supervisor.log_format: must be one of text, json, got 'xml'",
    )


def test_every_mistake_is_named_by_its_path() -> None:
    """One pass over the file finds them all."""
    text = """
[control]
commanders = ["deploy", 5]
unsaid_max = 3.5
connections_max = 70000
colour = "red"
[supervisor]
ring_slots = 1000
tick_s = "fast"
log_level = "loud"
[breakers.database]
failure_threshold = -3
failure_rate = 1.5
window = { seconds = 0.5 }
slow_call_rate = 2
minimum_calls = "off"
critical = "yes"
colour = "red"
[breakers."a/b/c"]
[breakers."bad name"]
[breakers.shop.database]
failure_threshold = 5
[namespaces.shop]
users = "deploy"
colour = "red"
[colours]
"""
    known = "failure_threshold, failure_rate, window, minimum_calls"
    found = mistakes(text)
    assert [error[:80] for error in found] == [
        error[:80]
        for error in (
            """f: control.commanders[0]: must be like "user:deploy" or "group:ops", got 'deploy'""",
            """f: control.commanders[1]: must be like "user:deploy" or "group:ops", got 5""",
            "f: control.unsaid_max: must be a whole number, got 3.5",
            "f: control.connections_max: must be <= 65536, got 70000",
            (
                "f: control.colour: unknown key; known are commanders, connections_max, per_uid_max, "
                "unsaid_max, hello_within_s"
            ),
            "f: supervisor.ring_slots: must be a power of two, got 1000",
            "f: supervisor.tick_s: must be a number, got 'fast'",
            "f: supervisor.log_level: must be one of debug, info, warning, error, got 'loud'",
            "f: breakers.database.critical: must be true or false, got 'yes'",
            f"f: breakers.database.colour: unknown key; known are {known}",
            "f: breakers.database.failure_threshold: must be >= 1, got -3",
            "f: breakers.database.failure_rate: must be above 0 and at most 1, got 1.5",
            "f: breakers.database.window.seconds: must be 1 to 3600, got 0.5",
            "f: breakers.database.slow_call_rate: must be above 0 and at most 1, got 2",
            "f: breakers.database.minimum_calls: must be a whole number, got 'off'",
            """f: breakers."a/b/c": must be NAME or NAMESPACE/NAME, got 'a/b/c'""",
            """f: breakers."bad name": must be 1 to 128 of [A-Za-z0-9_.:-], got 'bad name'""",
            "f: breakers.shop.database: unknown key; a name with a dot needs quotes: [breakers.",
            "f: namespaces.shop.colour: unknown key; known is users",
            "f: namespaces.shop.users: must be a list, got 'deploy'",
            "f: colours: unknown; known are control, supervisor, breakers, namespaces, workers",
        )
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a = ", "f: line 1, column 5: "),
        ("\n\n[control]\ncommanders = [", "f: line 4, column 15: "),
        ("[control]\nx = 1\nx = 2\n", "f: line 3, column 6: "),
    ],
)
def test_a_syntax_error_has_its_line_and_column(text: str, where: str) -> None:
    """Also one at the end of the file."""
    (found,) = mistakes(text)
    assert found.startswith(where)
    assert "(at" not in found


def test_keys_that_contradict_each_other() -> None:
    """Checked once each is good by itself."""
    assert mistakes("[breakers.x]\nslow_call_rate = 0.5") == (
        "f: breakers.x.slow_call_rate: needs slow_call_s, which says what slow is",
    )
    assert mistakes("[breakers.x]\nrecovery_timeout_max = 10") == (
        "f: breakers.x.recovery_timeout_max: must be >= recovery_timeout, which is 30, got 10",
    )


@pytest.mark.parametrize("text", ["breakers = 5", "[breakers]\nx = 5", "control = []", "[namespaces]\nx = 1"])
def test_a_value_where_a_table_belongs(text: str) -> None:
    """Said with the header that was meant."""
    (found,) = mistakes(text)
    assert "must be a table, as in [" in found


def test_off_turns_a_rule_off_only_where_it_may_be() -> None:
    """Exactly the keys that may be None."""
    nullable = {
        "failure_threshold", "failure_rate", "slow_call_s", "slow_call_rate", "cancelled_is_failure_s",
    }  # fmt: skip
    assert nullable == NULLABLE
    text = "[breakers.x]\n" + "\n".join(f'{key} = "off"' for key in sorted(NULLABLE))
    settings = parse(text, "f").breakers[0].settings
    assert all(getattr(settings, key) is None for key in NULLABLE)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory, another encoding, a file without an end."""
    cases = {
        tmp_path / "none": "No such file",
        tmp_path: "Is a directory",
        tmp_path / "latin": "line 2: not UTF-8",
        tmp_path / "big": "larger than",
    }
    (tmp_path / "latin").write_bytes(b"\n# caf\xe9\n")
    (tmp_path / "big").write_bytes(b"#" * (FILE_MAX + 1))
    for path, text in cases.items():
        with pytest.raises(ConfigurationError, match=text) as found:
            load(str(path))
        assert str(found.value).startswith(f"{path}: ")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Permission denied is a mistake of the configuration, not a crash."""
    path = tmp_path / "f.toml"
    path.touch(mode=0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="Permission denied"):
            load(str(path))
    finally:
        os.seteuid(before)


def test_the_file_is_remembered_but_does_not_make_settings_differ(tmp_path: Path) -> None:
    """The same content elsewhere is the same configuration."""
    path = tmp_path / "f.toml"
    path.write_text(WHOLE)
    settings = load(str(path))
    assert settings.file == str(path)
    assert settings == parse(WHOLE, "other")


def test_what_the_daemon_makes_of_it() -> None:
    """Breakers as a message carries them; who may join a namespace; the whole as JSON values."""
    settings = parse(WHOLE, "f")
    names = [(name, critical) for name, _, critical in settings.configured()]
    assert names == [("cache", False), ("shop/database", True)]
    assert BreakerSettings.from_json(json.loads(settings.configured()[0][1])) == BreakerSettings()
    assert settings.users_of("shop") == ("deploy", "www-data")
    assert settings.users_of("blog") is None
    plain = json.loads(json.dumps(settings.to_json()))
    assert list(plain) == [*SECTIONS, "breakers", "namespaces", "workers"]
    assert plain["control"]["commanders"] == ["user:deploy", "group:ops"]
    assert plain["breakers"]["shop/database"]["window"] == {"calls": 50}
    assert plain["namespaces"] == {"shop": {"users": ["deploy", "www-data"]}}


def test_every_setting_stands_in_one_table() -> None:
    """A field that no section names could never be set."""
    listed = [key for keys in SECTIONS.values() for key in keys]
    fields = set(SupervisorSettings.__dataclass_fields__) - {"breakers", "namespaces", "workers", "file"}
    assert sorted(listed) == sorted(fields)


def outcome(text: str) -> SupervisorSettings | tuple[str, ...]:
    """The settings, or the mistakes; what else is raised is raised here."""
    try:
        return parse(text, "f")
    except ConfigurationError as error:
        return error.errors


letters = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cc", "Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | letters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters, inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_list_of_mistakes(text: str) -> None:
    """Nothing else ever comes out, whatever is in the file."""
    assert outcome(text)


@given(st.sampled_from(sorted(BreakerSettings.__dataclass_fields__)), values)
def test_any_value_of_any_key_is_good_or_named(key: str, value: object) -> None:
    """A value of any kind is taken or refused under its own path."""
    found = outcome(f"[breakers.x]\n{key} = {_toml(value)}\n")
    if isinstance(found, SupervisorSettings):
        assert isinstance(found.breakers[0].settings, BreakerSettings)
    else:
        assert all(error.startswith(f"f: breakers.x.{key}") for error in found)


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000])
def test_a_number_of_thousands_of_digits_is_a_mistake(number: str) -> None:
    """Python refuses to write such a number down; so is it refused here."""
    assert len(mistakes(f"[breakers.x]\nminimum_calls = {number}")) == 1


def _toml(value: object) -> str:
    """Any value as TOML; None as a string."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(str(key), ensure_ascii=False)} = {_toml(inner)}" for key, inner in value.items()
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps("none" if value is None else value, ensure_ascii=False)
