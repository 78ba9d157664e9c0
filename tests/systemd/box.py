"""This machine's own systemd as PID 1 of private namespaces, on an overlay of `/`, to be thrown away.

Nothing of it outlives `close`: mounts, network and processes are in namespaces that end with their PID 1,
which dies with this process; only its cgroup directory is removed by hand. Needs root, systemd and cgroup v2.
The interpreter that runs the tests is mounted where a service's user can reach it (`/opt/python`), with an
environment beside it (`/opt/env`) whose commands run this checkout (`/opt/breakerd`) with what is installed
for these tests (`/opt/packages`).
Neighbours: `service` (breakerd inside a box), `tests.live.house` (waiting).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final, Self

from tests.live.house import ROOT, wait_for

SYSTEMD: Final = "/lib/systemd/systemd"
BOOT_S: Final = 30.0
OFF_S: Final = 10.0
COMMAND_S: Final = 60.0
PYTHON: Final = "/opt/env/bin/python"
SHARED: Final = "/opt/shared"
"""A directory of the tests, seen in the box."""

_NAMESPACES: Final = (
    "setpriv --pdeathsig KILL "
    "unshare --fork --kill-child --pid --mount --cgroup --uts --ipc --net --propagation private"
)

_BOOT: Final = r"""
set -eu
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
R=/mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay $R
mount -t proc proc $R/proc
# Read-only, else what systemd sets at its boot would be set on the host.
mount --bind $R/proc/sys $R/proc/sys
mount -o remount,bind,ro $R/proc/sys
mount -t sysfs -o ro sysfs $R/sys
mount -t cgroup2 cgroup2 $R/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $R/run
mount -t tmpfs -o mode=1777 tmpfs $R/tmp
mount -t tmpfs -o mode=755 tmpfs $R/dev
for name in null zero full random urandom tty; do
    : > $R/dev/$name
    mount --bind /dev/$name $R/dev/$name
done
mkdir $R/dev/pts $R/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $R/dev/pts
mount -t tmpfs -o mode=1777 tmpfs $R/dev/shm
ln -s pts/ptmx $R/dev/ptmx
ln -s /proc/self/fd $R/dev/fd
# Units of the host have no business here, and its /opt may be anything.
mkdir -p $R/etc/systemd/system $R/opt
mount -t tmpfs -o mode=755 tmpfs $R/etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs $R/opt
mkdir -p $R/opt/python $R/opt/packages $R/opt/breakerd $R/opt/shared
mount --bind "$BOX_PYTHON" $R/opt/python
mount --bind "$BOX_PACKAGES" $R/opt/packages
mount --bind "$BOX_SOURCE" $R/opt/breakerd
mount --bind "$BOX_SHARED" $R/opt/shared
cp -r "$BOX_SHARED"/env $R/opt/env
cd $R
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
mount --make-rshared /
# A Python that was built with a shared library looks for it where it was installed.
echo /opt/python/lib > /etc/ld.so.conf.d/breakerd-tests.conf
ldconfig
exec env -i container=breakerd-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --show-status=0
"""


def missing() -> str:
    """Why no box can be started here; empty = it can."""
    if os.geteuid() != 0:
        return "it needs root"
    if not os.path.exists(SYSTEMD):
        return f"there is no {SYSTEMD}"
    for tool in ("unshare", "nsenter", "setpriv", "systemctl", "systemd-analyze", "systemd-sysusers"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    if not _cgroup_root():
        return "no cgroup v2 is mounted"
    if not os.access(_cgroup_root(), os.W_OK):
        return "its cgroup v2 is read-only"
    return ""


def _cgroup_root() -> str:
    with open("/proc/mounts", encoding="utf-8") as file:
        return next((line.split()[1] for line in file if line.split()[2] == "cgroup2"), "")


class Box:
    """One booted systemd. `boot` it, and `close` it in every case."""

    def __init__(self) -> None:
        self.shared = Path(tempfile.mkdtemp(prefix="bkd-box-", dir="/tmp"))
        self.shared.chmod(0o755)
        self.log = self.shared / "console.log"
        self.cgroup = Path(_cgroup_root()) / self.shared.name
        """Its cgroup as it is called out here."""
        self._outer: subprocess.Popen[bytes] | None = None
        self.init = 0
        """PID 1 of the box, as it is called out here."""

    def boot(self) -> Box:
        """Start it and wait until basic.target is reached."""
        self._write_environment()
        self.cgroup.mkdir()
        surroundings = {
            **os.environ,
            "BOX_PYTHON": sys.base_prefix,
            "BOX_PACKAGES": sysconfig.get_path("purelib"),
            "BOX_SOURCE": str(ROOT),
            "BOX_SHARED": str(self.shared),
        }
        enter = f'echo $$ > "{self.cgroup}/cgroup.procs"; exec {_NAMESPACES} bash -c "$BOX_BOOT"'
        with self.log.open("ab") as log:
            self._outer = subprocess.Popen(
                ["bash", "-eu", "-c", enter],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**surroundings, "BOX_BOOT": _BOOT}, start_new_session=True,
            )  # fmt: skip
        self.init = wait_for("systemd is PID 1 of the box", self._find_init, BOOT_S)
        wait_for("the box has booted", self._booted, BOOT_S, 0.05)
        return self

    def _write_environment(self) -> None:
        """`/opt/env`: a virtual environment with breakerd's commands, whose code is this checkout."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        script = "#!/opt/env/bin/python\nimport sys\nfrom {} import main\nsys.exit(main())\n"
        files = {
            "pyvenv.cfg": "home = /opt/python/bin\n",
            "bin/breakerd": script.format("supervisor.main"),
            "bin/supervisorctl": script.format("supervisor.ctl.main"),
            f"lib/{version}/site-packages/breakerd.pth": "/opt/breakerd\n/opt/packages\n",
        }
        for name, text in files.items():
            path = self.shared / "env" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        (self.shared / "env/bin/python").symlink_to(f"/opt/python/bin/{version}")

    def _find_init(self) -> int:
        assert self._outer is not None
        if self._outer.poll() is not None:
            raise AssertionError(f"the box did not start:\n{self.console()[-3000:]}")
        with contextlib.suppress(OSError, ValueError):
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            for child in map(int, children):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
        return 0

    def _booted(self) -> bool:
        self._find_init()
        return self.run("systemctl", "is-active", "basic.target", check=False).returncode == 0

    def enter(self) -> list[str]:
        """What stands before a command line that is to run in the box, outside of every unit."""
        return ["nsenter", "-t", str(self.init), "-a", "--"]

    def run(
        self, *command: str, check: bool = True, timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the box; AssertionError with its output if it fails."""
        done = subprocess.run(
            [*self.enter(), *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, path: str, text: str) -> None:
        """A file in the box."""
        inside = self.path(path)
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(text)

    def path(self, path: str) -> Path:
        """A path in the box as it is reached from out here."""
        return Path(f"/proc/{self.init}/root{path}")

    def console(self) -> str:
        """What went wrong before there was a journal."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self) -> None:
        """Kill its PID 1, and with it everything that is in there; remove what is left."""
        if self._outer is not None:
            if self.init and self._outer.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.init, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._outer.wait(OFF_S)
            if self._outer.poll() is None:
                self._outer.kill()
                self._outer.wait(OFF_S)
        if self.cgroup.exists():
            wait_for("the box's cgroup is gone", self._remove_cgroup, OFF_S, 0.05)
        shutil.rmtree(self.shared, ignore_errors=True)

    def _remove_cgroup(self) -> bool:
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return not self.cgroup.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
