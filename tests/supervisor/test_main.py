"""The command `breakerd`: what it refuses before anything starts, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def breakerd(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    places = [str(ROOT), *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", "supervisor.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("verb", ["run", "demo"])
def test_beside_pypis_supervisor_it_refuses_to_start_and_says_what_to_do(tmp_path: Path, verb: str) -> None:
    """Exit 78, with the sentence that names the environment and the other command."""
    info = tmp_path / "supervisor-4.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.3.0\n")
    done = breakerd(verb, path=tmp_path)
    assert done.returncode == 78
    assert "environment of its own" in done.stderr
    assert "`breakerctl`" in done.stderr


def test_a_wrong_configuration_is_told_by_its_path_and_nothing_is_made(tmp_path: Path) -> None:
    """J2: exit 78, one line per mistake, no directory, no socket."""
    config = tmp_path / "breakerd.toml"
    config.write_text("[breakers.database]\nfailure_threshold = -3\nrecovery_timeout = 'soon'\n")
    done = breakerd("run", "--config", str(config), "--runtime-dir", str(tmp_path / "run"))
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        f"breakerd: {config}: breakers.database.failure_threshold: must be >= 1, got -3",
        f"breakerd: {config}: breakers.database.recovery_timeout: must be a number, got 'soon'",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["fifo", "pipe", "device", "directory"])
def test_a_configuration_that_could_be_read_once_only_is_refused(tmp_path: Path, kind: str) -> None:
    """`--config <(...)`: a reload has nothing to read, and the defaults are nobody's wish. Nobody waits."""
    reading, writing = os.pipe()
    os.write(writing, b"[breakers.database]\nfailure_threshold = 7\n")
    os.close(writing)
    os.mkfifo(tmp_path / "fifo")
    path = {
        "fifo": str(tmp_path / "fifo"),
        "pipe": f"/proc/{os.getpid()}/fd/{reading}",
        "device": "/dev/zero",
        "directory": str(tmp_path),
    }[kind]
    done = breakerd("run", "--config", path, "--runtime-dir", str(tmp_path / "run"))
    os.close(reading)
    assert (done.returncode, done.stderr) == (78, f"breakerd: {path}: cannot be read: not a regular file\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["breakerd.lock", "checkpoint"])
def test_a_file_of_no_use_in_the_runtime_directory_is_named(tmp_path: Path, part: str) -> None:
    """One sentence and exit 78, no traceback, and what it is a link to stays as it was."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / part).symlink_to(tmp_path / "elsewhere")
    where = ("--runtime-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state"))
    done = breakerd("run", *where)
    assert done.returncode == 78
    assert f"{tmp_path / 'run' / part}: cannot be used: Too many levels of symbolic links" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands in the way."""
    (tmp_path / "file").write_text("")
    done = breakerd("run", "--runtime-dir", str(tmp_path / "file" / "run"), "--state-dir", str(tmp_path))
    assert (done.returncode, done.stderr.count("file/run: cannot be made")) == (78, 1)


def test_a_directory_below_the_temporary_one_must_be_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it, or a link in its place, could replace everything in it: exit 78, nothing is used."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / f"breakerd-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    done = breakerd("run", "--runtime-dir", str(folder), "--state-dir", str(tmp_path / "state"))
    assert (done.returncode, done.stderr.count("is not a directory of this user")) == (78, 1)
    assert not list(folder.iterdir())


def test_a_socket_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    """D5: exit 78 before anything starts."""
    done = breakerd("run", "--runtime-dir", str(tmp_path / ("x" * 120)))
    assert done.returncode == 78
    assert "at most" in done.stderr
