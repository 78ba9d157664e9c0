"""A Celery application whose task is guarded, on a broker made of files."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

import ipc

FOLDER = Path(os.environ["TASKS_FOLDER"])
breaker = ipc.CircuitBreaker("database", failure_threshold=None, failure_rate=None)
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.02,
    },
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


@breaker
def query() -> int:
    """The dependency."""
    return os.getpid()


@app.task(name="tests.ask")
def ask(number: int) -> None:
    """Leave a file that says who did it."""
    (FOLDER / "done" / str(number)).write_text(str(query()))
