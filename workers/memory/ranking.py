"""How well a conversation answers a question: one function for the spool, the cache and the databases.

A text is taken apart into terms: words without their accents and endings, the parts of identifiers, pairs of
letters where a script has no spaces, and single signs. A term of the question counts the more, the fewer
texts have it (BM25); a word that only begins the same way, or is spelt a little differently, counts less.
The later of two equal answers is the better one. Pure: knows no database. Neighbours: `search`, `recall`.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

TERMS_MAX: Final = 64
"""How many terms of a question are looked for; the rest is ignored."""
TERM_CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 4_000
"""How much of each side of a conversation is weighed."""
NEAR_CHARS_MAX: Final = 400_000
"""How much of all texts, the latest first, is weighed closely; and as much of what was before them."""
SATURATION: Final = 1.2
"""The k of BM25: how little a second mention adds."""
LENGTH_WEIGHT: Final = 0.4
"""The b of BM25: how much a long text is held to have a word by chance."""
PREFIX_CHARS_MIN: Final = 3
MISSPELT_CHARS_MAX: Final = 30
"""The longest word that is looked for in other spellings."""
PHRASE_CHARS_MIN: Final = 4
PHRASE_BONUS: Final = 0.5
"""What it adds that the question stands in the text as it is."""
RECENCY_WEIGHT: Final = 0.08
"""What the latest text has over the earliest, as a part of its score."""
RECENCY_ASKED: Final = 0.9
"""The same, where the question is about the latest."""
COVER_MIN: Final = 0.12
"""Texts whose score is below this part of the best one's are no answer."""

_STOP_WORDS: Final = """
    a about am an and any are as at be been being but by can could did do does doing for from had
    has have he her hers him his how i if in into is it its just let like me my of on or our ours
    please s she should so t than that the their them then there these they this those to us was we
    were what when where which who whom whose why will with would you your tell remember know again
    said say told got get m re ve ll d der das den dem des ein eine einen einem einer und oder ist
    sind ich du er sie es wir ihr mein meine meinen meinem dein wie wo wann wer warum kann habe
    haben zu zum zur mit von im auf nicht le la les un une de et ou sont je tu il elle nous vous mon
    ma mes ton sa ses que qui quoi comment quand pourquoi dans sur avec au aux ce cette quel quelle
    el los las una unos y o yo mi mis su sus quien como donde cuando cual por para en del al lo gli
    uno e ed sono mio mia che quando quale nel della di и в на не что как где когда кто я мой моя
    мне у с по за из это о because while though also very much many some such
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
_LATEST: Final = """
    last latest newest recent recently current currently now today lately
"""
LATEST: Final = frozenset(_LATEST.split())
_FIRST: Final = """
    first earliest oldest original originally
"""
FIRST: Final = frozenset(_FIRST.split())

_PLAIN: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ß": "ss"})
_SPACELESS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0002fa1f"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_TOKENS: Final = re.compile(
    rf"[{_SPACELESS}]+|[a-z][+#]{{1,2}}(?![^\W_])|\d[\d.,]{{0,40}}\d|[^\W_{_SPACELESS}]+|"
    r"[\u2190-\u2bff\U0001f000-\U0001faff]"
)
_HUMPS: Final = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]{2,}|\d+")
_CAMEL: Final = re.compile(r"(?<![^\W_])(?=[A-Za-z0-9]{4,60}(?![^\W_]))[A-Za-z0-9]+")
_APOSTROPHE: Final = re.compile(r"(?<=\w)['’](?=\w)")
_HAS_SPACELESS: Final = re.compile(rf"[{_SPACELESS}]")


@dataclass(frozen=True, slots=True)
class Text:
    """What is ranked: the greater id is the later one."""

    id: str
    words: str


# --- terms ------------------------------------------------------------------------------------------


def folded(text: str) -> str:
    """The text in small letters, without accents."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize(
        "NFC", "".join(one for one in apart if not unicodedata.combining(one))
    ).translate(_PLAIN)


def has_no_spaces(term: str) -> bool:
    """Whether a term is of a script that writes no spaces."""
    return _HAS_SPACELESS.match(term) is not None


def terms_of(text: str) -> list[str]:
    """The terms of a text in their order, the parts of identifiers behind all others."""
    plain = _APOSTROPHE.sub("", folded(text))
    found: list[str] = []
    for token in _TOKENS.findall(plain):
        if token.isascii():
            found.extend(_terms_of_word(token[:TERM_CHARS_MAX]))
        elif has_no_spaces(token):
            found.extend(map("".join, itertools.pairwise(token)) if len(token) > 1 else token)
        else:
            found.append(stem(token[:TERM_CHARS_MAX]))
    for name in _CAMEL.findall(text):
        if not name.isdigit() and not name.islower():
            parts = _HUMPS.findall(name)
            if len(parts) > 1:
                found.extend(stem(part.lower()) for part in parts)
    return found


@functools.lru_cache(16_384)
def _terms_of_word(token: str) -> tuple[str, ...]:
    """The word itself; of a number also without its separators and its parts; of letters and digits both."""
    if token[0].isdigit():
        parts = re.findall(r"\d+", token)
        if len(parts) > 1:
            return ("".join(parts), *parts) if "," in token else (token, *parts)
    if token.isalpha() or token.isdigit():
        return (stem(token),)
    parts = re.findall(r"[a-z]+|\d+", token)
    return (token, *(stem(part) for part in parts)) if len(parts) > 1 else (token, *parts)


_ENDINGS: Final = (
    ("ational", ""),
    ("ations", ""),
    ("ation", ""),
    ("ating", ""),
    ("ments", "ment"),
    ("ness", ""),
    ("ings", ""),
    ("ing", ""),
    ("ions", ""),
    ("ion", ""),
    ("ated", ""),
    ("ates", ""),
    ("ate", ""),
    ("ies", "y"),
    ("ied", "y"),
    ("ers", ""),
    ("er", ""),
    ("ed", ""),
    ("ly", ""),
    ("es", ""),
    ("s", ""),
    ("e", ""),
)
IRREGULAR: Final = {
    word: known
    for known, words in {
        "go": "goes went gone going",
        "buy": "bought buys buying",
        "teach": "taught",
        "child": "children",
        "man": "men",
        "woman": "women",
        "foot": "feet",
        "tooth": "teeth",
        "mous": "mice mouse",
        "person": "people persons",
        "leav": "left leaves leave leaving",
        "eat": "ate eaten",
        "drink": "drank drunk",
        "run": "ran running runs runner",
        "writ": "wrote written write writes writing writer",
        "mak": "made make makes making",
        "tak": "took taken take takes taking",
        "giv": "gave given give gives giving",
        "pay": "paid pays paying payment",
        "sell": "sold",
        "send": "sent",
        "meet": "met meeting",
        "see": "saw seen",
        "begin": "began begun begins beginning",
        "break": "broke broken",
        "choos": "chose chosen choose choosing",
        "driv": "drove driven drive driving driver",
        "fly": "flew flown flies flying",
        "grow": "grew grown",
        "hold": "held",
        "keep": "kept",
        "lose": "lost loses losing",
        "find": "found",
        "think": "thought",
        "speak": "spoke spoken",
        "spend": "spent",
        "win": "won wins winning winner",
        "wear": "wore worn",
        "knif": "knives knife",
        "lif": "lives life",
        "wif": "wives wife",
        "bear": "born bore",
    }.items()
    for word in words.split()
}


@functools.lru_cache(16_384)
def stem(word: str) -> str:
    """The word without its ending, as far as English has endings; short words are left as they are."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) < 4 or word[-2:] in ("ss", "us", "is"):
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            left = word[: len(word) - len(ending)] + instead
            if len(left) > 3 and left[-1] == left[-2] and left[-1] not in "slz":
                left = left[:-1]
            return left[:-1] + "y" if left.endswith("i") else left
    return word


def asked(question: str) -> list[str]:
    """What a question asks for: its terms without stop words, unless it has nothing else."""
    clean = question.encode("utf-8", "ignore").decode()[:TEXT_CHARS_MAX]
    every = list(dict.fromkeys(terms_of(clean)))
    stops = _stems_of_stop_words()
    return ([one for one in every if one not in stops] or every)[:TERMS_MAX]


@functools.cache
def _stems_of_stop_words() -> frozenset[str]:
    return frozenset(map(stem, map(folded, STOP_WORDS))) | STOP_WORDS


# --- ranking ----------------------------------------------------------------------------------------


def rank(texts: Iterable[Text], question: str) -> list[tuple[str, float]]:
    """(id, score) of the texts that have a term of the question, best first."""
    terms = asked(question)
    if not terms:
        return []
    known = {one.id: one.words for one in _near(texts, terms)}
    counts = {one: Counter(terms_of(words)) for one, words in known.items()}
    having: defaultdict[str, list[str]] = defaultdict(list)
    for one, counted in counts.items():
        for term in counted:
            having[term].append(one)
    lengths = {one: counted.total() for one, counted in counts.items()}
    scores = _scores(terms, counts, having, lengths)
    if not scores:
        return []
    phrase = " ".join(folded(question).split())
    if len(phrase) >= PHRASE_CHARS_MIN:
        for one in scores:
            if phrase in " ".join(folded(known[one]).split()):
                scores[one] *= 1 + PHRASE_BONUS
    _prefer_later(scores, set(re.findall(r"\w+", folded(question))))
    best = sorted(scores.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
    return [(one, score) for one, score in best if score >= COVER_MIN * best[0][1]]


def _near(texts: Iterable[Text], terms: Sequence[str]) -> Iterator[Text]:
    """The latest texts; and of those before them what has a term as it is: all is not weighed for ever."""
    near, far = NEAR_CHARS_MAX, NEAR_CHARS_MAX
    for one in sorted(texts, key=lambda one: one.id, reverse=True):
        if near > 0:
            near -= len(one.words)
            yield one
        elif far > 0:
            plain = folded(one.words)
            if any(term in plain for term in terms):
                far -= len(one.words)
                yield one


def _scores(
    terms: Sequence[str],
    counts: Mapping[str, Counter[str]],
    having: Mapping[str, list[str]],
    lengths: Mapping[str, int],
) -> dict[str, float]:
    """BM25 over the terms and what is like them, by how much of the question is covered."""
    mean = sum(lengths.values()) / max(1, len(lengths)) or 1.0
    scores: defaultdict[str, float] = defaultdict(float)
    covered: defaultdict[str, float] = defaultdict(float)
    whole = 0.0
    for term in terms:
        best: dict[str, float] = {}
        for other, likeness in alike(term, having).items():
            for one in having[other]:
                often = counts[one][other]
                norm = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths[one] / mean)
                best[one] = max(best.get(one, 0.0), likeness * often * (1 + SATURATION) / (often + norm))
        rarity = math.log(1 + (len(counts) - len(best) + 0.5) / (len(best) + 0.5))
        whole += rarity
        for one, fit in best.items():
            scores[one] += rarity * fit
            covered[one] += rarity * min(1.0, fit)
    return {one: score * (0.5 + 0.5 * covered[one] / whole) for one, score in scores.items()}


def _prefer_later(scores: dict[str, float], words: Collection[str]) -> None:
    """Let the later one win among equals; or more, if the question is about the latest, or the first."""
    weight = RECENCY_WEIGHT if LATEST.isdisjoint(words) else RECENCY_ASKED
    order = sorted(scores, reverse=not FIRST.isdisjoint(words))
    for place, one in enumerate(order, 1):
        scores[one] *= 1 + weight * place / len(order)


# --- likeness ---------------------------------------------------------------------------------------


def alike(term: str, known: Collection[str]) -> dict[str, float]:
    """The known terms that may be meant by this one, with how surely, from 0 to 1."""
    found = {term: 1.0} if term in known else {}
    size = len(term)
    if size < PREFIX_CHARS_MIN or term.isdigit() or has_no_spaces(term):
        return found
    begin = term[: max(4, math.ceil(0.65 * size))] if size >= 4 else term
    inside = size >= 5
    for other in known:
        if other.startswith(begin):
            if other != term:
                shared = _same_beginning(term, other) / max(size, len(other))
                found[other] = max(0.75, shared) if other.startswith(term) else 0.2 + 0.6 * shared
        elif inside and term in other:
            found[other] = 0.5
    if not found and 4 <= size <= MISSPELT_CHARS_MAX:
        for other in known:
            if abs(len(other) - size) <= 2 and len(other) >= 4 and (near := _nearness(term, other)):
                found[other] = near
    return found


def _same_beginning(one: str, other: str) -> int:
    """How many letters they have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _nearness(one: str, other: str) -> float:
    """How sure it is that one is the other misspelt: by one slip, two from 7 letters on, 3 from 11."""
    allowed = 1 if len(one) < 7 else 2 if len(one) < 11 else 3
    if len(set(one) ^ set(other)) > 2 * allowed:
        return 0.0
    slips = distance(one, other)
    return 0.7 - 0.1 * slips if slips <= allowed else 0.0


def distance(one: str, other: str) -> int:
    """The slips between two words: letters that are missing, too much, wrong or swapped with the next."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        last, before, row = before, row, [place]
        for column, theirs in enumerate(other, 1):
            cost = min(before[column] + 1, row[-1] + 1, before[column - 1] + (letter != theirs))
            swapped = place > 1 and column > 1 and letter == other[column - 2] and one[place - 2] == theirs
            row.append(min(cost, last[column - 2] + 1) if swapped else cost)
    return row[-1]
