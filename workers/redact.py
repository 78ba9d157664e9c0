"""Error messages as they may leave the process: no passwords, no SQL parameters, no row contents.

Whatever could be a value goes, also where it turns out to be none: a log line that says too little is a
nuisance, one that says too much is a leak. Neighbours: `handler` (everything it logs or reports goes through
here). Knows no exception class.
"""

from __future__ import annotations

import re
from typing import Final

MESSAGE_MAX: Final = 500
"""Characters of a message that are kept; the rest is cut with an ellipsis."""
READ_MAX: Final = 20_000
"""Characters of a message that are looked at: what lies beyond is not kept anyway."""
HIDDEN: Final = "***"

_KEYS: Final = (
    r"[\w-]*(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|access[_-]?key|"
    r"credential\w*|auth|dsn)"
)
_IDENTIFIED: Final = (
    r"(?:relation|table|column|constraint|index|database|role|user|function|schema|type|extension|sequence|"
    r"operator|language|view|trigger|host|at|socket|attribute|module|named|parameter|key)"
)

_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # scheme://user:password@host, also a password with an @ in it
    (re.compile(r"(\w+://[^\s:/@'\"]*):[^\s'\"]*@"), rf"\1:{HIDDEN}@"),
    # SQLAlchemy: the parameters, and of the statement only what it is about
    (re.compile(r"\[parameters: .*", re.DOTALL), ""),
    (
        re.compile(r"\[SQL: ?([A-Za-z_]*(?: (?:INTO|FROM|TABLE))?(?: [A-Za-z_]+)?\b).*", re.DOTALL),
        r"[SQL: \1 ...]",
    ),
    # PostgreSQL: what it quotes of rows, statements and parameters
    (re.compile(r"\b(DETAIL|CONTEXT|HINT|QUERY|STATEMENT):.*?(?=\[SQL: |\Z)", re.DOTALL), rf"\1: {HIDDEN} "),
    (re.compile(r"^LINE \d+:.*?(?=\[SQL: |\Z)", re.DOTALL | re.MULTILINE), ""),
    (re.compile(r"(Failing row contains|Key) .*?(?=\[SQL: |\Z)", re.DOTALL), rf"\1 {HIDDEN} "),
    # key=value, "key": "value", key: value, --key value
    (
        re.compile(
            rf"(?i)\b({_KEYS})(['\"]?\s*(?:=>|[=:])\s*)"
            r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&)}\]]+)"
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(AUTH|Bearer|Basic)\s+\S+(?:\s+\S+)?"), rf"\1 {HIDDEN}"),
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
    text = text[:READ_MAX].replace("«", "<").replace("»", ">")
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 3] + "..."


def describe(error: BaseException) -> str:
    """An error in one redacted line: its class and what it says."""
    try:
        text = redact(str(error))
    except Exception:  # noqa: BLE001 (it is some class's own `__str__` that failed)
        text = "(it cannot say what it is)"
    kind = type(error).__qualname__
    return f"{kind}: {text}" if text else kind
