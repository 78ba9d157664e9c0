"""Systems that lack what Linux has: macOS works, Windows is told so at the import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import memory_config
import memory_error_handler_integration_example as example


def ran(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_macos_does_not_have(tmp_path: Path) -> None:
    """Without the calls that only Linux has, a sentence is stored, found, spooled and replayed."""
    program = (
        "import os, sys\n"
        "for name in ('posix_fallocate', 'fdatasync', 'memfd_create', 'pidfd_open', 'O_TMPFILE'):\n"
        "    hasattr(os, name) and delattr(os, name)\n"
        "from memory_config import MemoryConfig\n"
        "from memory_error_handler_integration_example import EnhancedMemoryLayerManager\n"
        "place = sys.argv[1]\n"
        "config = MemoryConfig(database_url=f'sqlite:///{place}/m.db', spool_directory=f'{place}/s')\n"
        "with EnhancedMemoryLayerManager(config) as memory:\n"
        "    print(memory.store_conversation('ann', 'stored', 'x').outcome.value)\n"
        "    memory._backing.database.force_open()\n"
        "    print(memory.store_conversation('ann', 'spooled', 'x').outcome.value)\n"
        "    memory._backing.database.reset()\n"
        "    print(memory.flush(), [one.conversation.user_message for one in memory.history('ann')])\n"
        "    print(memory.get_system_health()['memory']['cache'])\n"
    )
    done = ran(program, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "stored",
        "spooled",
        "True ['spooled', 'stored']",
        "{'in_use': True, 'epochs_shared': True, 'last_error': ''}",
    ]


def test_windows_is_named_at_the_import() -> None:
    """Without record locks, the error says which system it is, and which ones will do."""
    program = "import sys; sys.modules['fcntl'] = None\nimport memory_error_handler_integration_example\n"
    told = ran(program).stderr.splitlines()[-1]
    assert told.endswith(f"it runs on Linux and macOS, and not on {sys.platform}")


def test_what_can_be_caught_and_compared_is_exported() -> None:
    """No application has to import from `workers`."""
    for name in (
        "ClosedError",
        "MemoryConfigError",
        "MemoryLayerError",
        "RecordError",
        "SchemaError",
        "Source",
        "SpoolError",
        "StoreOutcome",
    ):
        assert name in example.__all__
        assert isinstance(getattr(example, name), type)
    assert memory_config.MemoryConfigError is example.MemoryConfigError
