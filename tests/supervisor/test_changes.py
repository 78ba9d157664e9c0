"""What is different between two configurations."""

from __future__ import annotations

from supervisor.changes import compare
from supervisor.settings import parse

OLD = """
[control]
commanders = ["user:deploy"]
[breakers.database]
failure_threshold = 3
[breakers.cache]
[namespaces.shop]
users = ["a"]
[workers.web]
target = "app:web"
[workers.mail]
target = "app:mail"
[workers.some]
target = "app:some"
count = 2
"""
NEW = """
[control]
commanders = ["user:deploy"]
connections_max = 100
[supervisor]
tick_s = 0.01
ring_slots = 1024
log_level = "debug"
[breakers.database]
failure_threshold = 4
[breakers.orders]
[namespaces.shop]
users = ["a", "b"]
[workers.mail]
target = "app:mail"
[workers.some]
target = "app:some"
count = 3
[workers.web]
target = "app:web"
args = [1]
[workers.new]
target = "app:new"
"""
NOTHING: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}


def test_each_section_has_its_names() -> None:
    """A table's place in the file is no difference."""
    changes = compare(parse(OLD, "file"), parse(NEW, "file"))
    assert changes.to_json() == {
        "changed": {
            "control": ["connections_max"],
            "supervisor": ["ring_slots", "tick_s", "log_level"],
            "breakers": {"added": ["orders"], "changed": ["database"], "removed": ["cache"]},
            "namespaces": {**NOTHING, "changed": ["shop"]},
            "workers": {**NOTHING, "added": ["new"], "changed": ["some", "web"]},
        },
        "restarted": ["web"],
        "kept": [
            "supervisor.ring_slots: attached workers keep their queue, new ones get the new size",
            "supervisor.log_level: mail, some log as before until they are restarted",
        ],
    }
    assert changes.sentence() == (
        "control: connections_max; supervisor: ring_slots, tick_s, log_level; "
        "breakers: added orders, changed database, removed cache; namespaces: changed shop; "
        "workers: added new, changed some, web"
    )


def test_a_running_worker_keeps_the_form_of_its_lines() -> None:
    """It was told at its start."""
    changes = compare(parse(OLD, "file"), parse(OLD + '[supervisor]\nlog_format = "json"\n', "file"))
    assert changes.to_json()["kept"] == [
        "supervisor.log_format: web, mail, some log as before until they are restarted"
    ]


def test_the_same_is_no_difference() -> None:
    """Whatever the text looks like, and wherever it was read."""
    changes = compare(parse(OLD, "one"), parse("# the same\n" + OLD, "other"))
    assert changes.sentence() == "nothing is different"
    assert changes.to_json()["changed"]["breakers"] == NOTHING


def test_equal_is_not_the_same() -> None:
    """A worker that is called with 1 is another one than that which is called with true."""
    text = '[workers.web]\ntarget = "app:web"\nargs = [{}]\n'
    changes = compare(parse(text.format("1"), "file"), parse(text.format("true"), "file"))
    assert changes.restarted == ("web",)
    assert changes.sentence() == "workers: changed web"


def test_a_sentence_does_not_name_everything() -> None:
    """Five, and how many more."""
    many = "".join(f"[breakers.b{number}]\n" for number in range(9))
    changes = compare(parse("", "file"), parse(many, "file"))
    assert changes.sentence() == "breakers: added b0, b1, b2, b3, b4 and 4 more"
    assert len(changes.to_json()["changed"]["breakers"]["added"]) == 9
