"""The closing account: when it says EXACT, and when it must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from workers.demo.account import (
    Account,
    Kills,
    OutageFigures,
    Tallied,
    is_back,
    lost,
    outage_figures,
    report,
    stuck,
    tally,
)
from workers.demo.ledger import Counts, Phase

QUIET = Counts(Phase.STOPPED, None, *[0] * 11)


def counts(success: int, failure: int = 0, refused: int = 0, flying: tuple[int, int] = (0, 0)) -> Counts:
    """A ledger with so many outcomes issued, `flying` of them without their second mark."""
    return replace(
        QUIET,
        issued_success=success,
        issued_failure=failure,
        done_success=success - flying[0],
        done_failure=failure - flying[1],
        refused=refused,
    )


def answer(success: int, failure: int = 0, rejected: int = 0, **others: int) -> dict[str, Any]:
    """What `supervisorctl stats --json` would say."""
    kinds = {"success": success, "failure": failure, "ignored": 0, **others}
    return {
        "totals": {"outcomes": kinds, "rejected": rejected, "permit_timeout": 0, "ramped": 0},
        "lost": {
            "ring_gap": 0,
            "ring_invalid": 0,
            "segment_lost": 0,
            "unknown_row": 0,
            "refused_row": 0,
            "checkpoint_lost": 0,
        },
    }


def account(*tallies: Tallied, **changes: Any) -> Account:
    """An account with those tallies and nothing else amiss."""
    figures = OutageFigures(everywhere_s=0.012, hits=9, waited_s=1.4, refused=300, recovery_s=1.25)
    made = Account(
        workers=6,
        outage_s=4.0,
        alone=replace(figures, everywhere_s=None, hits=1048),
        together=figures,
        kills=Kills(worker=2, worker_pid=11, daemon_pid=12, new_daemon_pid=13, back_s=0.4),
        tallies=tallies,
        refused=Tallied("refused", 300, 300, 0),
        lost=(),
        stuck=0,
        took_s=27.0,
    )
    return replace(made, **changes)


def test_the_sum_over_all_workers_is_compared_by_kind() -> None:
    """Issued is the sum of every ledger, the dead worker's too; counted is what the supervisor says."""
    found, refused = tally([counts(10, 2, 7), counts(5)], counts(3, 1, 1), answer(18, 3, 8))
    assert found == (Tallied("success", 18, 18, 0), Tallied("failure", 3, 3, 0))
    assert refused == Tallied("refused", 8, 8, 0)
    assert account(*found).exact


@pytest.mark.parametrize(("counted", "exact"), [(16, False), (17, True), (18, True), (19, False)])
def test_only_the_outcome_in_flight_may_be_missing(counted: int, exact: bool) -> None:
    """One success without its second mark may be counted or not; nothing else may be missing or too many."""
    found, _ = tally([counts(15)], counts(3, flying=(1, 0)), answer(counted))
    assert account(*found).exact is exact


def test_an_outcome_in_flight_excuses_no_other_kind() -> None:
    """A failure that is missing is missing, although a success was in flight."""
    found, _ = tally([counts(15, 4)], counts(3, flying=(1, 0)), answer(18, 3))
    assert not account(*found).exact


def test_a_kind_that_was_never_issued_is_not_exact() -> None:
    """An outcome counted under a kind that no worker issued spoils the account."""
    found, _ = tally([counts(4)], counts(0), answer(4, cancelled=1))
    assert found[-1] == Tallied("cancelled", 0, 1, 0)
    assert not account(*found).exact


def test_what_the_supervisor_lost_spoils_the_account() -> None:
    """A gap in a ring is told and is not exact, although the sums agree."""
    said = answer(4)
    said["lost"]["ring_gap"] = 2
    made = account(Tallied("success", 4, 4, 0), lost=lost(said))
    assert not made.exact
    assert "lost, says the supervisor: 2 ring_gap" in report(made)


def test_a_worker_that_left_in_order_has_nothing_in_flight() -> None:
    """An outcome without its second mark of a living worker was never put: not exact."""
    assert stuck([counts(4), counts(3, 1, flying=(1, 1))]) == 2
    assert not account(Tallied("success", 4, 4, 0), stuck=2).exact


@pytest.mark.parametrize(("counted", "exact"), [(299, False), (300, True), (301, True), (302, False)])
def test_refusals_are_exact_too(counted: int, exact: bool) -> None:
    """A killed worker may not have noted the last refusal that was counted; no other may differ."""
    made = account(Tallied("success", 4, 4, 0), refused=Tallied("refused", 300, counted, 0))
    assert made.exact is exact


def test_figures_of_an_outage() -> None:
    """Times run from the first failure of anybody to the last worker's first refusal, and to its way back."""
    one = replace(
        QUIET, hits=3, waited_ns=450_000_000, first_failure=1_000_000_000, first_refusal=1_004_000_000,
        last_refusal=4_000_000_000, back=4_500_000_000, refused=10,
    )  # fmt: skip
    two = replace(one, hits=0, waited_ns=0, first_failure=0, first_refusal=1_020_000_000, back=4_700_000_000)
    figures = outage_figures([one, two], released_ns=3_900_000_000)
    assert figures.everywhere_s == pytest.approx(0.020)
    assert figures.recovery_s == pytest.approx(0.8)
    assert (figures.hits, figures.refused) == (3, 20)
    assert figures.waited_s == pytest.approx(0.45)


def test_an_outage_that_nobody_refused_has_no_times() -> None:
    """Where a worker was never refused, `everywhere` never came; where nobody is back, no recovery did."""
    one = replace(QUIET, hits=1, first_failure=5)
    assert outage_figures([one, QUIET], released_ns=9) == OutageFigures(None, 1, 0.0, 0, None)


def test_a_trial_in_the_outage_is_no_way_back() -> None:
    """A success counts as the way back only after the database is free and after the last refusal."""
    one = replace(QUIET, last_refusal=10, back=12)
    assert is_back(one, released_ns=11)
    assert not is_back(one, released_ns=13)
    assert not is_back(replace(one, last_refusal=12), released_ns=11)
    assert not is_back(one, released_ns=0)


def test_the_report_of_an_exact_run() -> None:
    """The account names both runs, the kills, the sums and the one outcome in flight."""
    made = account(Tallied("success", 9310, 9309, 1), Tallied("failure", 9, 9, 0))
    assert report(made) == [
        "One outage of 4 s, 6 workers",
        "                                        in-process   host-wide",
        "  first failure -> refused everywhere        never       12 ms",
        "  calls that hit the dead database           1,048           9",
        "  time that callers waited on it             1.4 s       1.4 s",
        "  calls refused at once instead                300         300",
        "  database back -> everybody served         1.25 s      1.25 s",
        "",
        "kill -9 of worker 2 (pid 11) and of daemon 12;",
        "its successor 13 answered 0.40 s later",
        "",
        "  Outcomes, host-wide                       issued     counted",
        "  success                                    9,310       9,309  exact, 1 in flight",
        "  failure                                        9           9  exact",
        "  refused (no outcomes)                        300         300  exact",
        "",
        "worker 2 was killed with 1 outcome in flight: it had not reached the ring",
        "EXACT: 9,319 outcomes issued = 9,318 counted + 1 in flight at the kill",
        "took 27.0 s",
    ]


def test_the_report_of_a_run_that_is_not_exact() -> None:
    """A missing outcome is told by kind and in the verdict."""
    lines = report(account(Tallied("success", 12, 10, 0)))
    assert "  success                                       12          10  off by -2" in lines
    assert lines[-2] == "NOT EXACT: 12 outcomes issued, 10 counted; see above"
