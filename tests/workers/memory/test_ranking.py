"""The right answer is among the first five, whoever holds it; and it takes little time to find."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.workers.memory.questions import LATER, asked, talk
from tests.workers.memory.shelves import Shelf
from workers.memory import recall
from workers.memory.ranking import Text, distance, folded, rank, stem, terms_of
from workers.memory.records import Conversation
from workers.memory.spooled import Spooled

FIRST = 5
Ask = Callable[[str], list[str]]


def shares(ask: Ask) -> tuple[float, float, list[str]]:
    """Which part of the English questions, and of all, have their answer among the first; and the others."""
    right: Counter[str] = Counter()
    every: Counter[str] = Counter()
    missed = []
    for kind, question, message in asked():
        found = ask(question)[:FIRST]
        every[kind] += 1
        right[kind] += message in found
        if message not in found:
            missed.append(f"{kind}: {question}")
    assert every.total() >= 150
    return right["english"] / every["english"], right.total() / every.total(), missed


def conversations() -> list[Conversation]:
    """All that was said."""
    return [Conversation.now("ann", message, answer) for message, answer in talk()]


def test_a_database_finds_the_answer(shelf: Shelf) -> None:
    """On every kind of it."""
    shelf.insert(*conversations())
    english, every, missed = shares(lambda question: shelf.texts("ann", question, FIRST))
    assert english >= 0.95, missed
    assert every >= 0.9, missed
    for early, later, question in LATER:
        found = shelf.texts("ann", question, FIRST)
        assert found[0] == later
        assert early in found


def test_spool_and_cache_find_what_a_database_finds(shelf: Shelf) -> None:
    """In the same order with the same scores; and what waits in the spool does not outrank what is stored."""
    said = conversations()
    shelf.insert(*said)
    for _, question, _ in asked()[::7]:
        stored = [(one.conversation.id, one.score) for one in shelf.search("ann", question, FIRST)]
        waiting = [(one.conversation.id, one.score) for one in recall.ranked(said, question)[:FIRST]]
        assert waiting == stored
        merged = recall.merge_search(
            shelf.search("ann", question, 50), Spooled(tuple(said[::2])), question, 1
        )
        assert [one.conversation.id for one in merged] == [stored[0][0]]


def test_older_conversations_are_found_too(shelf: Shelf) -> None:
    """By the index, behind more than is looked at otherwise; and what stands far down a long text."""
    one = Conversation.now("ann", "The narwhal lives under the pier", "Noted.")
    asian = Conversation.now("ann", "周末去爬山需要带雨衣", "好的")
    shelf.insert(one, asian, *[Conversation.now("ann", f"talk of number {n}", "yes") for n in range(1_100)])
    assert shelf.texts("ann", "where does the narwhal live?", 3)[0] == one.user_message
    assert shelf.texts("ann", "narwhals", 3) == [one.user_message]
    assert shelf.texts("ann", "爬山带什么", 3) == [asian.user_message]
    long = Conversation.now("ann", "filler " * 2_000 + "ocelot", "yes")
    shelf.insert(long)
    assert shelf.search("ann", "ocelot")[0].conversation == long


def test_a_script_without_spaces_is_found_wherever_it_waits(shelf: Shelf) -> None:
    """The same answer from the spool and from the database; nothing without words, from neither."""
    said = [Conversation.now("ann", text, "x") for text in ("我喜欢苹果派", "ชอบกินข้าวผัด", "concatenate 🦊")]
    shelf.insert(*said)
    for question in ("苹果", "ข้าวผัด", "🦊", "cat", "", "?!"):
        found = [one.conversation.id for one in recall.ranked(said, question)]
        assert found == [one.conversation.id for one in shelf.search("ann", question)]
        assert len(found) == (question.strip("?!") not in ("", "cat"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("connections", "connect"),
        ("stories", "story"),
        ("baking", "bakes"),
        ("running", "run"),
        ("Éclairs", "eclair"),
    ],
)
def test_words_have_one_stem(one: str, other: str) -> None:
    """Whatever their endings."""
    assert stem(folded(one)) == stem(folded(other))


def test_names_have_parts() -> None:
    """By humps, digits, lines and points; a number without its separators."""
    assert {"fetch", "row"} <= set(terms_of("fetchAllRows"))
    assert {"snak", "2", "case2"} <= set(terms_of("snake_case2"))
    assert set(terms_of("12,345.6")) & set(terms_of("12345.6"))
    assert "c#" in terms_of("C# or F#")


def test_slips_are_counted() -> None:
    """A swap of neighbours is one."""
    assert [distance("lemon", other) for other in ("lemon", "lemno", "melon", "lem")] == [0, 1, 2, 2]


def test_a_search_takes_little_time() -> None:
    """A thousand conversations, a long question of misspelt words."""
    texts = [Text(f"{n:05}", f"{message}\n{answer} {n}") for n, (message, answer) in enumerate(talk() * 5)][
        :1_000
    ]
    question = "wherre iz teh motorbyke of tomatose in celler fesitval " * 3
    began = time.thread_time()
    assert rank(texts, question)
    assert time.thread_time() - began < 1.0


def test_a_search_of_long_texts_takes_little_time() -> None:
    """Of a thousand answers as models give them; what is in an early one is found all the same."""
    page = " ".join(f"{message} {answer}" for message, answer in talk()[:30])[:4_000]
    texts = [Text(f"{n:05}", f"about {n}\n{page}") for n in range(1_000)]
    texts[3] = Text("00003", f"the wombat sleeps\n{page}")
    began = time.thread_time()
    assert rank(texts, "where is the wombat?")[0][0] == "00003"
    assert time.thread_time() - began < 1.0
