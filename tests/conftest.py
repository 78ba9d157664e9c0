"""What every test may rely on, and the line that ends a run: `ran N, could not run M: ids`.

Nothing skips silently: a test that cannot run here (it needs root, a kernel feature, a second user)
calls `could_not_run` with the id of what stays untested; any other skip is counted under its own name.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import pytest

pytest_plugins = ["tests.servers"]

MARK: Final = re.compile(r"could not run ([^:]+): ")


def could_not_run(identity: str, reason: str) -> NoReturn:
    """End this test as not run: `identity` (a fault's id or a short name) goes into the last line."""
    pytest.skip(f"could not run {identity}: {reason}")


class Account:
    """What ran and what did not, told from the reports alone, so that no test can forget to tell."""

    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.missing: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test; an expected failure has run."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)
        elif report.when == "call" or report.failed:
            self.ran.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file that was skipped as a whole."""
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        found = MARK.search(text)
        self.missing[found[1] if found else report.nodeid] = None

    def line(self) -> str:
        """The last line of the run."""
        return f"ran {len(self.ran)}, could not run {len(self.missing)}: {' '.join(self.missing) or 'none'}"

    def pytest_unconfigure(self) -> None:
        """Print the line after everything that pytest itself prints."""
        print(self.line(), flush=True)


def pytest_configure(config: pytest.Config) -> None:
    """Count this run, and make the fault tests' mark known: such tests stand in other folders, too."""
    config.addinivalue_line("markers", "fault(id): injects the fault with that id of the catalogue")
    config.pluginmanager.register(Account(), "account")
