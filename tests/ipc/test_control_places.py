"""Where the control socket is, and what a failed connect means."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import control
from ipc.errors import SupervisorUnavailable
from tests.conftest import could_not_run
from tests.ipc.supervisors import answering, ask, socket_place, supervisor


@pytest.fixture
def place() -> Iterator[str]:
    """A socket path in a short directory of its own."""
    with socket_place() as path:
        yield path


# --- connecting -----------------------------------------------------------------------------------------


def test_no_socket_is_absent(place: str) -> None:
    """A path that does not exist says so, and what to do."""
    with pytest.raises(SupervisorUnavailable, match="does not exist; start breakerd") as caught:
        ask(place)
    assert caught.value.reason == "absent"


def test_a_stale_socket_is_refused(place: str) -> None:
    """A socket file without a listener is a supervisor that is away (D1)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(place)
    with pytest.raises(SupervisorUnavailable, match="nobody listens") as caught:
        ask(place)
    assert caught.value.reason == "refused"


def test_a_file_in_its_place_is_refused(place: str) -> None:
    """Something that is no socket refuses connections."""
    Path(place).write_text("a file", encoding="utf-8")
    with pytest.raises(SupervisorUnavailable) as caught:
        ask(place)
    assert caught.value.reason == "refused"


def test_a_full_queue_is_full(place: str) -> None:
    """A supervisor that does not accept any more is told apart from one that is away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(place)
        listener.listen(0)
        with contextlib.ExitStack() as waiting:
            for _ in range(1):
                waiting.callback(control.connect(place).close)
            with pytest.raises(SupervisorUnavailable) as caught:
                control.connect(place)
    assert caught.value.reason == "full"


def test_a_path_has_a_limit() -> None:
    """A path that no UNIX socket can have is told with the limit (D5)."""
    with pytest.raises(SupervisorUnavailable, match="at most 107 bytes"):
        control.connect("/tmp/" + "x" * 103)
    with pytest.raises(SupervisorUnavailable, match="does not exist"):
        control.connect("/tmp/" + "x" * 102)


def test_no_permission_names_the_group(place: str) -> None:
    """A user outside of the group is told which group it must join (D6)."""
    if os.geteuid() != 0:
        could_not_run("D6-connect", "only root can become another user")
    with supervisor(place, answering({})):
        os.chmod(place, 0o660)
        os.chmod(os.path.dirname(place), 0o755)
        os.chown(place, 0, 4321)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(65_534, 65_534, 65_534)
                os.setresuid(65_534, 65_534, 65_534)
                control.connect(place)
            except SupervisorUnavailable as error:
                code = 7 if error.reason == "denied" and "group with id 4321" in str(error) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


# --- where the socket is --------------------------------------------------------------------------------


def test_the_socket_is_the_first_place_that_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given, else BREAKERD_SOCKET, else the default places; `off` is no place at all."""
    monkeypatch.setenv("BREAKERD_SOCKET", "/a/socket")
    assert control.socket_path("/given") == "/given"
    assert control.socket_path() == "/a/socket"
    monkeypatch.setenv("BREAKERD_SOCKET", "off")
    assert (control.socket_path(), control.socket_path("off"), control.socket_path("/given")) == (
        None,
        None,
        "/given",
    )


def test_without_a_system_directory_the_socket_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_RUNTIME_DIR, else a directory of this user under the temporary directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert control.runtime_directory() == "/run/user/5/breakerd"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert control.runtime_directory() == f"/var/tmp/breakerd-{os.getuid()}"
    monkeypatch.delenv("TMPDIR")
    assert control.runtime_directory() == f"/tmp/breakerd-{os.getuid()}"
    monkeypatch.delenv("BREAKERD_SOCKET", raising=False)
    system = os.path.isdir(control.SYSTEM_DIRECTORY)
    folder = control.SYSTEM_DIRECTORY if system else control.runtime_directory()
    assert control.socket_path() == f"{folder}/breakerd.sock"


def test_a_strangers_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the temporary directory only a directory that this user made is trusted; a link to one is not."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = Path(control.runtime_directory())
    path = str(folder / control.SOCKET_NAME)
    control.check_owner(path)
    folder.mkdir()
    control.check_owner(path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(SupervisorUnavailable) as caught:
        control.check_owner(path)
    assert caught.value.reason == "denied"
    folder.unlink()
    folder.mkdir()
    if os.geteuid() != 0:
        could_not_run("strangers-directory", "only root can give a directory away")
    os.chown(folder, 4321, 4321)
    with pytest.raises(SupervisorUnavailable):
        control.check_owner(path)


def test_request_numbers_are_not_used_twice() -> None:
    """Each exchange has a number of its own, of 32 bits."""
    numbers = [control.next_request() for _ in range(1000)]
    assert len(set(numbers)) == 1000
    assert max(numbers) < 1 << 32
