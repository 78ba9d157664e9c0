"""The one table of errors: what each code, class or text means, and what follows from it.

    about   connection | operation of the dependency, configuration, or what was being done ("task")
    origin  whose fault it is
    retry   the same call may succeed a moment later
    counts  it is evidence that the dependency is down: a breaker counts it as a failure

Families are asked in the order of `FAMILIES`, text last; inside a family the longest match wins, inside
`text` the first. Classes are named, not imported: no driver is loaded to classify its errors.
Neighbours: `classify` (asks), the guide (in which this table is printed). Knows no exception object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from workers.kinds import Area, Origin

About = Literal["connection", "operation", "configuration", "task"]

_ABOUTS: Final[dict[str, About]] = {
    "connection": "connection",
    "operation": "operation",
    "configuration": "configuration",
    "task": "task",
}
_ORIGINS: Final = {
    "D": Origin.DEPENDENCY,
    "L": Origin.LOCAL,
    "C": Origin.CALLER,
    "S": Origin.CONFIGURATION,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    family: str
    match: str
    """A code, a code's beginning and `*`, a qualified class name, a bare one, or a pattern."""
    about: About
    origin: Origin
    retriable: bool
    counts: bool
    meaning: str


def _rules(family: str, text: str) -> tuple[Rule, ...]:
    """Rows of `match | about | origin, retry, counts as letters | meaning`; `-` is no."""
    made = []
    for line in text.strip().splitlines():
        match, about, flags, meaning = (part.strip() for part in line.rsplit("|", 3))
        origin, retry, counts = tuple(flags)
        rule = Rule(family, match, _ABOUTS[about], _ORIGINS[origin], retry == "r", counts == "c", meaning)
        made.append(rule)
    return tuple(made)


SQLSTATES: Final = _rules(
    "sqlstate",
    """
    08*   | connection | Drc | the connection failed or was lost
    57P0* | connection | Drc | the server is stopping, crashed or not ready yet
    57P04 | connection | S-- | the database was dropped
    57014 | operation  | Drc | the statement took longer than its time limit
    57*   | operation  | D-- | an operator intervened
    53300 | connection | Drc | the server has no connection left
    53200 | operation  | Drc | the server is out of memory
    53100 | operation  | D-- | the server's disk is full
    53*   | operation  | D-- | the server is out of something else
    58*   | operation  | Drc | the server's own system failed
    XX*   | operation  | D-- | the server's data or code is broken
    25006 | operation  | S-- | this server only reads: a replica, or set so
    25*   | operation  | C-- | the transaction is in another state
    40001 | operation  | Dr- | could not serialize: somebody else was quicker
    40P01 | operation  | Dr- | deadlock: this one was chosen to give way
    40*   | operation  | D-- | the transaction was rolled back
    55P03 | operation  | Dr- | a lock was not free in time
    55*   | operation  | C-- | the object is in another state
    28*   | connection | S-- | user, password or permission to connect is wrong
    3D000 | connection | S-- | there is no such database
    42501 | operation  | S-- | this user may not do that
    42*   | operation  | C-- | the statement is wrong
    23*   | operation  | C-- | a constraint was violated
    22*   | operation  | C-- | a value is wrong
    *     | operation  | C-- | any other answer of the server to a statement
    """,
)

SQLITE: Final = _rules(
    "sqlite",
    """
    BUSY       | operation  | Drc | another process held the lock for longer than busy_timeout
    LOCKED     | operation  | Drc | another connection of this process held the lock
    PROTOCOL   | operation  | Drc | the locks of the file could not be agreed on
    IOERR      | operation  | Drc | the disk failed
    CANTOPEN   | connection | Drc | the file cannot be opened
    SCHEMA     | operation  | Dr- | the schema changed meanwhile
    INTERRUPT  | operation  | Cr- | the statement was interrupted
    FULL       | operation  | L-- | the disk is full
    CORRUPT    | operation  | L-- | the file is damaged
    NOTADB     | connection | S-- | the file is no database
    READONLY   | operation  | S-- | the file or its folder may not be written
    PERM       | connection | S-- | the file may not be used
    AUTH       | operation  | S-- | not authorised
    NOMEM      | operation  | L-- | this machine is out of memory
    *          | operation  | C-- | the statement, a value or a constraint is wrong
    """,
)

REDIS: Final = _rules(
    "redis",
    """
    LOADING     | connection | Drc | the server is starting: its data is not there yet
    BUSY        | connection | Drc | the server is held up by a script
    MASTERDOWN  | connection | Drc | the replica has lost its master
    CLUSTERDOWN | connection | Drc | the cluster does not serve
    TRYAGAIN    | operation  | Dr- | the slot is being moved
    NOREPLICAS  | operation  | Dr- | too few replicas to accept a write
    READONLY    | operation  | S-- | this server only reads: a replica
    OOM         | operation  | S-- | maxmemory is reached and nothing may be evicted
    MISCONF     | operation  | S-- | the server cannot save and refuses to write
    NOAUTH      | connection | S-- | a password is wanted
    WRONGPASS   | connection | S-- | user or password is wrong
    NOPERM      | operation  | S-- | this user may not do that
    MOVED       | operation  | S-- | the key lives on another server of a cluster
    ASK         | operation  | S-- | the key is moving to another server of a cluster
    *           | operation  | C-- | the command or its value is wrong
    """,
)

ERRNOS: Final = _rules(
    "errno",
    """
    ECONNREFUSED  | connection | Drc | nobody listens there
    ECONNRESET    | connection | Drc | the other side closed without a word
    ECONNABORTED  | connection | Drc | the connection was given up
    EPIPE         | connection | Drc | the other side has closed
    ENOTCONN      | connection | Drc | the connection is gone
    ESHUTDOWN     | connection | Drc | the connection is shut down
    ETIMEDOUT     | connection | Drc | no answer in time
    EHOSTUNREACH  | connection | Drc | no way to the host
    EHOSTDOWN     | connection | Drc | the host is down
    ENETUNREACH   | connection | Drc | no way to the network
    ENETDOWN      | connection | Drc | the network is down
    ENETRESET     | connection | Drc | the network dropped the connection
    EAGAIN        | connection | Drc | not now: a queue is full
    EADDRNOTAVAIL | connection | Lr- | this machine has no port left
    EMFILE        | connection | Lr- | this process has no descriptor left
    ENFILE        | connection | Lr- | this machine has no descriptor left
    ENOMEM        | task       | L-- | this machine is out of memory
    ENOSPC        | task       | L-- | a disk of this machine is full
    EDQUOT        | task       | L-- | the quota on this machine is used up
    EIO           | task       | L-- | a disk of this machine failed
    EROFS         | task       | S-- | the file system only reads
    EACCES        | task       | S-- | this user may not do that
    EPERM         | task       | S-- | this is not permitted
    ENOENT        | connection | Drc | the socket or file is not there (yet)
    *             | task       | L-- | any other error of the system
    """,
)

HTTP: Final = _rules(
    "http",
    """
    401 | task | S-- | the credentials are wrong or missing
    403 | task | S-- | these credentials may not do that
    407 | task | S-- | the proxy wants credentials
    408 | task | Drc | the server waited too long for the request
    425 | task | Dr- | too early: the same request may pass later
    429 | task | Drc | too many requests
    4*  | task | C-- | the request is wrong, or what it asks for is not there
    501 | task | C-- | the server cannot do that
    505 | task | C-- | the server does not speak this version
    5*  | task | Drc | the server failed, or what stands in front of it
    *   | task | C-- | an answer that the program did not expect
    """,
)

CLASSES: Final = _rules(
    "class",
    """
    httpx.PoolTimeout                                | task | Lr- | the pool of this process is used up
    httpx.TimeoutException                           | task | Drc | no answer in time
    httpx.UnsupportedProtocol                        | task | C-- | the address is wrong
    httpx.LocalProtocolError                         | task | C-- | the request is wrong
    httpx.TransportError                             | task | Drc | the connection failed or was lost
    httpx.HTTPError                                  | task | C-- | a redirect or a body that is wrong
    httpx.InvalidURL                                 | task | C-- | the address is wrong
    httpx.StreamError                                | task | C-- | a mistake in the program
    httpcore.PoolTimeout                             | task | Lr- | the pool of this process is used up
    httpcore.TimeoutException                        | task | Drc | no answer in time
    httpcore.NetworkError                            | task | Drc | the connection failed or was lost
    httpcore.RemoteProtocolError                     | task | Drc | what answers breaks the protocol
    requests.exceptions.ConnectionError              | task | Drc | the connection failed or was lost
    requests.exceptions.Timeout                      | task | Drc | no answer in time
    requests.exceptions.ChunkedEncodingError         | task | Drc | the answer was cut off
    requests.exceptions.RetryError                   | task | Drc | it failed again and again
    requests.exceptions.RequestException             | task | C-- | the request is wrong
    urllib3.exceptions.EmptyPoolError                | task | Lr- | the pool of this process is used up
    urllib3.exceptions.LocationValueError            | task | C-- | the address is wrong
    urllib3.exceptions.TimeoutError                  | task | Drc | no answer in time
    urllib3.exceptions.ProtocolError                 | task | Drc | the connection was lost
    urllib3.exceptions.MaxRetryError                 | task | Drc | it failed again and again
    urllib3.exceptions.NewConnectionError            | task | Drc | nobody answers there
    urllib3.exceptions.SSLError                      | task | Drc | the encrypted connection failed
    urllib3.exceptions.HTTPError                     | task | C-- | the request or its answer is wrong
    aiohttp.client_exceptions.ClientConnectorCertificateError | task | S-- | it is not trusted
    aiohttp.client_exceptions.InvalidURL             | task | C-- | the address is wrong
    aiohttp.client_exceptions.ClientConnectionError  | task | Drc | the connection failed or was lost
    aiohttp.client_exceptions.ClientPayloadError     | task | Drc | the answer was cut off
    aiohttp.client_exceptions.ClientError            | task | C-- | the request or its answer is wrong
    openai.APIConnectionError                        | task | Drc | no answer
    anthropic.APIConnectionError                     | task | Drc | no answer
    http.client.InvalidURL                           | task | C-- | the address is wrong
    http.client.HTTPException                        | task | Drc | what answers breaks the protocol
    workers.errors.MemoryConfigError                 | configuration | S-- | a setting of the memory is wrong
    workers.errors.SchemaError                       | configuration | S-- | the tables are missing or newer
    workers.errors.SpoolError                        | task | L-- | this host's disk takes nothing
    workers.errors.RecordError                       | task | C-- | a value is wrong
    workers.errors.ClosedError                       | task | C-- | it was closed before
    workers.errors.ErasureIncomplete                 | task | Dr- | it is completed later
    workers.errors.CacheBusy                         | connection | Lr- | all connections are in use
    ipc.errors.SettingsError                         | configuration | S-- | a setting of a breaker is wrong
    ipc.errors.ControlDenied                         | configuration | S-- | this user may not command
    redis.exceptions.MaxConnectionsError             | connection | Lr- | the pool is used up
    redis.exceptions.AuthenticationError             | connection | S-- | NOAUTH or WRONGPASS
    redis.exceptions.AuthenticationWrongNumberOfArgsError | connection | S-- | it wants no user name
    redis.exceptions.AuthorizationError              | connection | S-- | not authorised
    redis.exceptions.BusyLoadingError                | connection | Drc | LOADING
    redis.exceptions.ConnectionError                 | connection | Drc | the connection was lost
    redis.exceptions.TimeoutError                    | connection | Drc | no answer in time
    redis.exceptions.InvalidResponse                 | connection | Drc | what answers is no Redis
    redis.exceptions.MasterDownError                 | connection | Drc | MASTERDOWN
    redis.exceptions.ClusterDownError                | connection | Drc | CLUSTERDOWN
    redis.exceptions.RedisClusterException           | connection | Drc | the cluster cannot be reached
    redis.exceptions.TryAgainError                   | operation  | Dr- | TRYAGAIN
    redis.exceptions.WatchError                      | operation  | Dr- | a watched key was changed
    redis.exceptions.ReadOnlyError                   | operation  | S-- | READONLY
    redis.exceptions.OutOfMemoryError                | operation  | S-- | OOM
    redis.exceptions.NoPermissionError               | operation  | S-- | NOPERM
    redis.exceptions.AskError                        | operation  | S-- | MOVED or ASK
    redis.exceptions.RedisError                      | operation  | C-- | the command is wrong
    sqlalchemy.exc.TimeoutError                      | connection | Lr- | the pool of this process is used up
    sqlalchemy.exc.DisconnectionError                | connection | Drc | the connection was lost
    sqlalchemy.exc.NoSuchModuleError                 | configuration | S-- | there is no such driver
    sqlalchemy.exc.SQLAlchemyError                   | operation  | C-- | a mistake in the program
    psycopg_pool.PoolTimeout                         | connection | Lr- | the pool of this process is used up
    psycopg_pool.TooManyRequests                     | connection | Lr- | the pool of this process is used up
    OperationalError                                 | connection | Drc | the database failed
    InterfaceError                                   | operation  | C-- | the program uses its driver wrongly
    InternalError                                    | operation  | D-- | the database is out of order
    IntegrityError                                   | operation  | C-- | a constraint was violated
    DataError                                        | operation  | C-- | a value is wrong
    ProgrammingError                                 | operation  | C-- | the statement is wrong
    NotSupportedError                                | operation  | C-- | the database cannot do that
    ssl.SSLCertVerificationError                     | connection | S-- | the certificate is not trusted
    ssl.SSLError                                     | connection | Drc | the encrypted connection failed
    socket.gaierror                                  | connection | Drc | the host's name was not found
    builtins.ConnectionError                         | connection | Drc | the connection failed or was lost
    builtins.TimeoutError                            | connection | Drc | no answer in time
    builtins.EOFError                                | connection | Drc | the other side has closed
    builtins.MemoryError                             | task       | L-- | this process is out of memory
    builtins.ModuleNotFoundError                     | configuration | S-- | a package is not installed
    builtins.TypeError                               | task       | C-- | a mistake in the program
    builtins.ValueError                              | task       | C-- | a value is wrong
    builtins.LookupError                             | task       | C-- | something is not there
    builtins.AttributeError                          | task       | C-- | a mistake in the program
    builtins.NameError                               | task       | C-- | a mistake in the program
    builtins.ArithmeticError                         | task       | C-- | a value is wrong
    builtins.AssertionError                          | task       | C-- | a mistake in the program
    builtins.ImportError                             | task       | C-- | a mistake in the program
    builtins.NotImplementedError                     | task       | C-- | this was never written
    builtins.RecursionError                          | task       | C-- | a mistake in the program
    builtins.SyntaxError                             | task       | C-- | a mistake in the program
    """,
)

TEXTS: Final = _rules(
    "text",
    r"""
    too many (clients|connections)|connection slots are|max number of clients | connection | Drc | as 53300
    starting up|shutting down|not yet accepting|in recovery mode | connection | Drc | as 57P03
    too many requests|rate.?limit | task | Drc | as 429
    quota | task | S-- | a quota is used up: a retry does not help
    auth?enti[^ .,]{2,20}\b.{0,80}(fail|fehl|échou|fall|required|denied) | connection | S-- | as 28*
    no pg_hba|noauth|(access|permission) denied|unauthori[sz]ed|forbidden | connection | S-- | as 28*
    (invalid|incorrect|wrong|missing|no) (pass|credential|user|api.?key|token) | connection | S-- | as 28*
    password (is|was) (wrong|incorrect|invalid|required|missing) | connection | S-- | as 28*
    (role|database|user) \S+ (does not exist|is not permitted) | connection | S-- | as 28* or 3D000
    pool\b.{0,80}(exhausted|limit of|timeout|used up) | connection | Lr- | the pool of this process is used up
    syntax error|no such (table|column)|(relation|column) \S+ does not exist | operation | C-- | as 42*
    unique constraint|duplicate (key|entry)|violates|constraint failed | operation | C-- | as 23*
    deadlock|could not serialize|lock wait | operation | Dr- | as 40P01
    (database|table) is locked | operation | Drc | as BUSY
    read-?only | operation | S-- | as READONLY
    disk( is|) full|no space left | operation | L-- | as ENOSPC
    \b(dis|)connect(ions?|ed|)\b | connection | Drc | no connection
    broken pipe|refused|reset by peer|unreachable|closed the | connection | Drc | no connection
    time(d)?[ -]?out | connection | Drc | no answer in time
    temporar|try again|unavailable|overloaded | task | Drc | it says that it passes
    \bconfig(uration|)\b|not configured|environment variable | configuration | S-- | a setting is wrong
    """,
)

UNKNOWN: Final = Rule(
    "-", "anything else", "task", Origin.DEPENDENCY, True, True, "nothing is known: it is assumed to pass"
)

FAMILIES: Final = (SQLSTATES, SQLITE, REDIS, HTTP, ERRNOS, CLASSES, TEXTS, (UNKNOWN,))
AREAS: Final = {"sqlstate": Area.DATABASE, "sqlite": Area.DATABASE, "redis": Area.CACHE}
"""Families that tell which dependency spoke."""


def table() -> str:
    """The whole table in Markdown, as it stands in the guide."""
    lines = [
        "| family | code, class or text | about | origin | retried | counts | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        lines += map(_row, family)
    return "\n".join(lines)


def _row(rule: Rule) -> str:
    match = rule.match.replace("|", "\\|")
    retried, counts = (("yes" if said else "no") for said in (rule.retriable, rule.counts))
    facts = f"{rule.about} | {rule.origin.value} | {retried} | {counts} | {rule.meaning}"
    return f"| {rule.family} | `{match}` | {facts} |"
