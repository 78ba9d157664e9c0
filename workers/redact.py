"""Error messages as they may leave the process: no passwords, no SQL parameters, no row contents.

Whatever could be a value goes, also where it turns out to be none: a log line that says too little is a
nuisance, one that says too much is a leak. Neighbours: `handler` (everything it logs or reports goes through
here). Knows no exception class.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MESSAGE_MAX: Final = 500
"""Characters of a message that are kept; the rest is cut with an ellipsis."""
READ_MAX: Final = 4_000
"""Characters of a message that are looked at: what lies beyond is not kept anyway."""
HIDDEN: Final = "***"
WORD_MIN: Final = 24
"""From how many characters on a word with digits and letters of both cases is taken for a token."""

# No pattern here may look at one character from many places: a repeat is bounded, or begins where the run
# of its signs begins, or takes what it has looked at. A test measures all of them.

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|credential\w{0,9}|auth|dsn|signature|"
    r"(?:api|access|private|secret|signing|account)[ _-]?key(?:[ _-]?id)?|session(?:[ _-]?id)?|"
    r"(?<![a-z])(?:sig|sid|jwt|otp|pin)"
)
"""What the name of a secret ends with."""
_IDENTIFIED: Final = (
    r"(?:relation|table|column|constraint|index|database|role|user|function|schema|type|extension|sequence|"
    r"operator|language|view|trigger|host|at|socket|attribute|module|named|parameter|key)"
)
_VALUE: Final = r"(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&)}\]]+)"
_NO_VALUE: Final = frozenset(
    ("not", "required", "missing", "invalid", "wrong", "expired", "too", "empty", "incorrect", "revoked")
)


def _address(found: re.Match[str]) -> str:
    """//user:password@host, also a password with an @ in it; a port is none, and a password may be cut."""
    user, rest = found.groups()
    if "@" in rest:
        return f"{user}:{HIDDEN}@{rest.rpartition('@')[2]}"
    if re.match(r"\d{1,5}(?!\d|[^\W_])", rest) or user.startswith("//["):
        return f"{user}:{rest}"
    return f"{user}:{HIDDEN}"


def _behind(found: re.Match[str]) -> str:
    """Of "password is x", "token x": what follows is a value if it is said to be one, or looks so."""
    name, link, value = found.groups()
    looks = re.search(r"\d|[a-z][A-Z]", value) is not None
    if not looks and (not link.strip() or value.casefold().strip(".,;:!") in _NO_VALUE):
        return found[0]
    return f"{name}{link}{HIDDEN}"


def _opaque(found: re.Match[str]) -> str:
    """A long word of digits and letters of both cases says nothing to a reader, and may be a key."""
    word = found[0]
    kinds = (str.isdigit, str.islower, str.isupper)
    return HIDDEN if all(any(map(kind, word)) for kind in kinds) else word


_RULES: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"(//[^\s:/@'\"]*):([^\s'\"]+)"), _address),
    (re.compile(r"-----BEGIN [A-Z ]{0,40}KEY-----.*?(?:-----END[^\n]*|\Z)", re.DOTALL), HIDDEN),
    # what begins as tokens of known makers do, keys of AWS, and JWTs
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:[spr]k[-_]|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|hf_|npm_|pypi-|"
            r"shp[a-z]{2}_|dop_v1_|SG\.|AIza|ya29\.|A[KS]IA|eyJ)[\w.~+/=*-]{6,}"
        ),
        HIDDEN,
    ),
    # SQLAlchemy: the parameters, and of the statement only what it is about
    (re.compile(r"\[parameters: .*", re.DOTALL), ""),
    (
        re.compile(r"\[SQL: ?([A-Za-z_]*(?: (?:INTO|FROM|TABLE))?(?: [A-Za-z_]+)?\b).*", re.DOTALL),
        r"[SQL: \1 ...]",
    ),
    # PostgreSQL: what it quotes of rows, statements and parameters
    (re.compile(r"\b(DETAIL|CONTEXT|HINT|QUERY|STATEMENT):.*?(?=\[SQL: |\Z)", re.DOTALL), rf"\1: {HIDDEN} "),
    (re.compile(r"^LINE \d+:.*?(?=\[SQL: |\Z)", re.DOTALL | re.MULTILINE), ""),
    (re.compile(r"(Failing row contains|\bKey) .*?(?=\[SQL: |\Z)", re.DOTALL), rf"\1 {HIDDEN} "),
    # key=value, "key": "value", key: value, --key value; a cookie goes on to the end of its line
    (re.compile(r"(?i)(\bcookies?['\"]?\s{0,9}[=:])[^\r\n]*"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            rf"(?i)({_NAMES})((?: (?:provided|given|supplied|used))?"
            rf"['\"]?\s{{0,9}}(?:=>|[=:])\s{{0,9}}){_VALUE}",
            re.DOTALL,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(AUTH|Bearer|Basic)\s{1,9}\S+(?:\s{1,9}\S+)?"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?i)({_NAMES})((?:\s{{1,9}}(?:is|was|of))?\s{{1,9}})([^\s'\"*]+)"), _behind),
    (re.compile(r"(?<![\w.+%-])(?<!//)[\w.+%-]+@(?=[\w-])"), f"{HIDDEN}@"),
    (re.compile(rf"[A-Za-z0-9_-]{{{WORD_MIN},}}"), _opaque),
    # a package that is not installed is what somebody has to know who reads this
    (re.compile(r"\bNo module named ['\"]([^\W\d]\w*(?:\.\w+)*)['\"]"), r"No module named «\1»"),
    # a value behind a colon, up to the last quote: it may hold quotes itself
    (re.compile(r": ?\".*\"", re.DOTALL), f': "{HIDDEN}"'),
    (re.compile(r": ?'.*'", re.DOTALL), f": '{HIDDEN}'"),
    # whatever is quoted and is not the name of something in the schema
    (re.compile(rf"(?i)\b({_IDENTIFIED}) \"([\w./$-]+)\""), r"\1 «\2»"),
    (re.compile(r"\"[^\"]*\"?"), f'"{HIDDEN}"'),
    (re.compile(r"(?<!\w)'[^']*'?"), f"'{HIDDEN}'"),
    (re.compile(r"«([^»]*)»"), r'"\1"'),
    # on one line, and none that only looks like one of the log's
    (re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+"), " "),
)


def redact(text: str) -> str:
    """The message without what is nobody's business, on one line, of at most MESSAGE_MAX characters."""
    text = _begun(text).replace("«", "<").replace("»", ">")
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 3] + "..."


def _begun(text: str) -> str:
    """As much as is looked at, without an address at its end that was cut before it could be known."""
    if len(text) <= READ_MAX:
        return text
    text = text[:READ_MAX]
    last = text.rsplit(None, 1)[-1] if not text.isspace() else ""
    return text[: -len(last)] if not {*":@/"}.isdisjoint(last) else text


def describe(error: BaseException) -> str:
    """An error in one redacted line: its class and what it says."""
    try:
        text = redact(str(error))
    except Exception:  # noqa: BLE001 (it is some class's own `__str__` that failed)
        text = "(it cannot say what it is)"
    kind = type(error).__qualname__
    return f"{kind}: {text}" if text else kind
