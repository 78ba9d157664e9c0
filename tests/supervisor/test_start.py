"""What a daemon begins with: what was kept, what could not be read, and that it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor import start, views
from supervisor.descriptors import PHASE_CHECKPOINT, PHASE_COPY, PHASE_STARTING, Held, Inheritance
from supervisor.disk import DiskCopy
from supervisor.journal import FILE_NAME
from supervisor.messages import DaemonStarted, Message
from supervisor.settings import SupervisorSettings
from tests.supervisor.conversation import FACTS, FAILURE, Host, nonce
from tests.supervisor.journals import BOOT, SOFTWARE, opened

NOW = 200.0


def kept(folder: Path) -> dict[str, Any]:
    """A checkpoint of a host with an open breaker, and a copy of it on disk; what it holds."""
    host = Host()
    host.settle_in("a", "b")
    host.outcomes(*[("a", FAILURE), ("b", FAILURE)] * 3)
    host.leave("a")
    host.leave("b")
    plain: dict[str, Any] = json.loads(json.dumps(host.engine.to_plain()))
    journal = opened(folder)
    journal.snapshot(plain)
    assert DiskCopy(str(folder / "state")).save(journal.image(), BOOT, NOW)
    journal.close()
    return plain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A runtime directory with a state directory in it."""
    (tmp_path / "state").mkdir()
    return tmp_path


def begun(
    folder: Path,
    boot: int = BOOT,
    fresh: int = 0,
    held: tuple[Held, ...] = (),
    phase: Callable[[int], object] = lambda _phase: None,
) -> start.Begun:
    """The start of a daemon there."""
    numbers = (-1, -1, -1, -1, 1, 0.0)
    inherited = Inheritance(*numbers, "", str(folder), str(folder / "state"), fresh, held)
    found = start.begin(inherited, boot, SupervisorSettings(), NOW, phase)
    found.journal.close()
    return found


def opening(found: start.Begun) -> Host:
    """A host after the first messages of that start."""
    host = Host()
    host.engine = found.engine
    first: tuple[Message, ...] = found.opening(found.problems)
    assert isinstance(first[0], DaemonStarted)
    for message in first:
        host.say(message)
    return host


def lost(host: Host) -> int:
    """What the figures say of checkpoints."""
    return host.engine.counting.lost.checkpoint_lost


def test_a_whole_checkpoint_is_continued_and_nothing_is_told(folder: Path) -> None:
    """The normal start: the same engine, no problem, no figure."""
    plain = kept(folder)
    found = begun(folder)
    assert json.loads(json.dumps(found.engine.to_plain())) == plain
    assert (found.problems, found.told, lost(opening(found))) == ((), (), 0)


def test_an_unreadable_checkpoint_is_a_problem_of_this_life_and_a_figure_for_ever(folder: Path) -> None:
    """It is set aside and told; the copy on disk is what is left."""
    kept(folder)
    (folder / FILE_NAME).write_bytes(b"no checkpoint" * 1000)
    found = begun(folder)
    assert found.engine.catalogue.named["app/database"].metrics.outcomes[FAILURE] == 6
    assert len(found.problems) == len(found.told) == 1
    assert "set aside" in found.problems[0]
    assert lost(opening(found)) == 2


def test_a_checkpoint_that_fails_every_start_is_set_aside_and_the_copy_continued(folder: Path) -> None:
    """It is renamed, never read, and counted as lost; what the copy on disk knows is not lost with it."""
    kept(folder)
    phases: list[int] = []
    found = begun(folder, fresh=PHASE_CHECKPOINT, phase=phases.append)
    assert phases == [PHASE_CHECKPOINT, PHASE_COPY]
    assert found.engine.catalogue.named["app/database"].metrics.outcomes[FAILURE] == 6
    assert found.problems[0].startswith("state_quarantined: ")
    assert "continued from the copy" in found.problems[0]
    assert lost(opening(found)) == 1
    assert list(folder.glob(f"{FILE_NAME}.bad-*"))
    assert not list((folder / "state").glob("*.bad-*"))


def test_where_the_copy_fails_every_start_too_it_starts_empty_and_says_so(folder: Path) -> None:
    """Both are renamed, never read, and counted as lost; nothing that was read is to blame any more."""
    kept(folder)
    phases: list[int] = []
    found = begun(folder, fresh=PHASE_CHECKPOINT | PHASE_COPY, phase=phases.append)
    assert phases == [PHASE_CHECKPOINT, PHASE_COPY, PHASE_STARTING]
    assert not found.engine.catalogue.numbered
    assert all(one.startswith("state_quarantined: ") for one in found.problems)
    assert list(folder.glob(f"{FILE_NAME}.bad-*"))
    assert list((folder / "state").glob("*.bad-*"))
    host = opening(found)
    assert lost(host) == 2
    said = {verb: views.answer(host.engine, {"verb": verb}, FACTS, NOW, 0.0) for verb in ("events", "stats")}
    assert "state_quarantined" in str(said["events"])
    assert said["stats"]["lost"]["checkpoint_lost"] == 2


def test_a_reboot_is_told_once_and_is_no_problem(folder: Path) -> None:
    """The copy is of a moment before: that is told and counted, but the supervisor is as it should be."""
    kept(folder)
    (folder / FILE_NAME).unlink()
    found = begun(folder, boot=BOOT + 1)
    assert found.problems == ()
    assert "continued from the copy" in found.told[0]
    assert lost(opening(found)) == 1


def test_a_tomb_that_the_nursery_still_holds_is_dropped_again(folder: Path) -> None:
    """The answer to the drop was not committed, or the drop never arrived: its descriptors go with it."""
    kept(folder)
    held = Held(nonce("a"), 90, 91, {})
    found = begun(folder, held=(held,))
    assert (found.tombs_held, found.adopted) == ((held,), ())
    host = opening(found)
    assert list(host.engine.tombs) == [nonce("a")], "b's, which nobody holds, is forgotten"


LATER: Final = 1_000_000
"""A version of the engine's snapshot that nobody has written yet."""


def written_by_a_later_version(folder: Path, plain: dict[str, Any]) -> None:
    """A whole checkpoint whose engine this version does not know, and a copy of it."""
    journal = opened(folder)
    journal.snapshot({**plain, "version": LATER})
    assert DiskCopy(str(folder / "state")).save(journal.image(), BOOT, NOW)
    journal.close()


def test_a_checkpoint_of_a_later_version_is_set_aside_at_once_and_told(folder: Path) -> None:
    """Whole but unknown: neither it nor its copy is read or lost, and no start fails for it."""
    written_by_a_later_version(folder, kept(folder))
    found = begun(folder)
    assert not found.engine.catalogue.numbered
    assert [one.partition(": ")[0] for one in found.problems] == ["state_quarantined"] * 2
    assert all("not a snapshot of version" in one for one in found.problems)
    assert SOFTWARE in found.problems[0]
    assert len(list(folder.glob(f"{FILE_NAME}.bad-*"))) == 1
    assert len(list((folder / "state").glob("*.bad-*"))) == 1
    assert lost(opening(found)) == 2
    assert begun(folder).problems == (), "the next start has a checkpoint of its own"


def test_a_message_that_this_version_does_not_know_sets_the_checkpoint_aside(folder: Path) -> None:
    """A later version's journal: the copy on disk, if it is older, is continued."""
    kept(folder)
    journal = opened(folder)
    journal.snapshot(journal.load().snapshot)  # type: ignore[union-attr] # it is there
    assert journal.append(NOW, 0.0, [99, "a field"])
    journal.commit()
    journal.close()
    found = begun(folder)
    assert found.engine.catalogue.named["app/database"].metrics.outcomes[FAILURE] == 6
    assert found.problems[0].startswith("state_quarantined: ")


def test_few_checkpoints_that_were_set_aside_are_kept(folder: Path) -> None:
    """The oldest go: the runtime directory is memory."""
    for stamp in range(5):
        (folder / f"{FILE_NAME}.bad-{1_700_000_000 + stamp}").write_bytes(b"bad")
    kept(folder)
    begun(folder, fresh=PHASE_CHECKPOINT)
    left = sorted(path.name for path in folder.glob(f"{FILE_NAME}.bad-*"))
    assert len(left) == start.SET_ASIDE_MAX
    assert left[:2] == [f"{FILE_NAME}.bad-{1_700_000_003}", f"{FILE_NAME}.bad-{1_700_000_004}"]


def test_a_worker_of_another_pid_namespace_is_waited_for(folder: Path) -> None:
    """No pid is known here, and no pid says nothing: it is not buried before it could come back."""
    host = Host()
    host.settle_in("a", "b")
    host.outcomes(("a", FAILURE))
    for worker in host.engine.workers.values():
        worker.pid = 0 if worker.nonce == nonce("a") else 2**22 - 1
    plain = json.loads(json.dumps(host.engine.to_plain()))
    journal = opened(folder)
    journal.snapshot(plain)
    journal.close()
    found = begun(folder)
    assert found.absent == ((nonce("a"), 0),)
    host = opening(found)
    assert list(host.engine.workers) == [nonce("a")]
    assert host.engine.counting.lost.segment_lost == 1
