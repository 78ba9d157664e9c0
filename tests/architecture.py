"""The architecture written down: the order of files, and every exception to a house rule with its reason.

Neighbours: `test_tidy`, which holds the tree to it. A new file must be given its row in LAYERS.
"""

from __future__ import annotations

from typing import Final

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    # A file imports only from rows above its own; files of one row do not import each other.
    "ipc": (
        # words, bytes, errors
        "beating caller_ends errors forks gate logbook ownership",
        "vocabulary wire",
        "facts layout verdict",
        # the breaker, pure
        "circuit permits window",
        "circuits evidence",
        "trials",
        "status",
        "breaker",
        # the segment and the socket
        "control ring segment",
        "control_async blocks",
        "asking",
        # a worker process
        "outlet",
        "local",
        "fallback",
        "link",
        "rows",
        "attachment ending",
        "client",
        "process",
        "admission counters",
        "awaited orders",
        "entered",
        "guard",
        "testing",
        "__init__",
    ),
    "supervisor": (
        # what is said
        "__init__ checks descriptor_reserve errors event_loop facts idle log_files messages",
        "metrics package peer stderr steps",
        "priority settings_workers",
        "policy settings_probe",
        "retreat",
        "descriptors disk image log_pipe places settings units",
        "changes config_file example journal kept logs processes process_identity strays",
        "connection_limits descriptor_closer doorbells rate_limit user_database",
        # the engine, pure
        "chronicle host_breaker",
        "older probe_watch turn worker",
        "catalogue counting limits",
        "forgetting roster",
        "engine",
        # the daemon's actors, and what they touch
        "actor breaker_views connections decode errand health leaving probe_schedule timers",
        "mind source views",
        "control_messages intake probes",
        "attachments intake_actor start talks",
        "commands disk_actor figures hello managed refusals",
        "commanders reload request_parsing selfcheck starting view_queue",
        "view_server",
        "control_server",
        "daemon",
        # its parent
        "listener lock notify",
        "seat store",
        "birth deposits lives reports",
        "ward",
        "wards",
        "nursery",
        "main",
        # the command line
        "ctl.__init__ ctl.page",
        "ctl.ask ctl.colour ctl.exits ctl.finding ctl.screen ctl.trouble",
        "ctl.parse",
        "ctl.configuring ctl.doctor_probes ctl.health ctl.listings ctl.managing ctl.probing ctl.reloading",
        "ctl.doctor ctl.tailing ctl.usage ctl.versions ctl.waiting",
        "ctl.breaker ctl.watching",
        "ctl.main",
    ),
    "workers": (
        # the error handling
        "__init__ demo.__init__ errors kinds marks redact surroundings throttle",
        "metrics rules",
        "classify",
        "breakers fallback retry",
        "recovery",
        "handler",
        "decorate",
        # recovery probes
        "probes.__init__ probes.question",
        "probes.database probes.function probes.network probes.program probes.redis",
        "prober",
        # the memory in its database
        "memory.__init__ memory.deadlines memory.forking memory.ids memory.places",
        "memory.migrations.__init__ memory.migrations.r0001_first",
        "memory.ranking memory.records",
        "memory.config memory.models",
        "memory.engines memory.postgres memory.schema memory.search",
        "memory.queries",
        "memory.store",
        # what stands in for the database, and in front of it
        "memory.epochs memory.group_commit memory.locks memory.spool_file",
        "memory.codec memory.leases memory.single_flight memory.spool_views",
        "memory.cache memory.spool",
        "memory.redis_cache memory.spooled",
        "memory.recall memory.replay",
        "memory.replay_thread memory.spool_owner memory.spool_places",
        # the managers
        "memory.backing memory.replay_post",
        "memory.call_pool memory.manager",
        "memory.async_manager",
        # the replayer as a program
        "memory.replayer",
        # the demo
        "demo.leash demo.ledger demo.scene demo.shop",
        "demo.account demo.crew demo.outage demo.processes demo.talker demo.tap",
        "demo.lines demo.stage demo.talk_database",
        "demo.screen demo.talk",
        "demo.acts",
        "demo.__main__",
    ),
}
"""The order inside each package, lowest row first."""

FLOORS: Final = {"ipc": (), "supervisor": ("ipc",), "workers": ("ipc",)}
"""Which other packages of this project a package may import."""

OUTSIDE: Final = {
    "ipc": (),
    "supervisor": ("multiprocessing_logging", "psutil", "rich"),
    "workers": (
        "cachetools",
        "msgspec",
        "psutil",
        "psycopg",
        "redis",
        "rich",
        "sqlalchemy",
        "tenacity",
    ),
}
"""Which distributions from outside the standard library a package may import."""

ALONE: Final = {"ipc/testing.py": ("pytest",)}
"""What one file may import besides, because nobody imports it unasked."""

LAZY: Final[dict[str, tuple[str, ...]]] = {
    "supervisor/birth.py": ("importlib",),  # a managed worker's own code, in its own process
    "ipc/logbook.py": ("logging",),  # a fifth of what `import ipc` costs, for what is rarely said
    "supervisor/ctl/main.py": ("importlib",),  # one verb needs one file
    "supervisor/ctl/screen.py": ("importlib",),  # rich only on a terminal, explanations only in trouble
    "workers/prober.py": ("importlib",),  # a driver only for who is asked through it
    "workers/probes/function.py": ("importlib",),  # the function that the configuration names
    "workers/memory/engines.py": ("importlib",),  # psycopg only for PostgreSQL
    "workers/memory/config.py": ("importlib",),  # psycopg only for PostgreSQL
}
"""Where a function may import, by file, and what: outlets that most runs never need."""

CLOCKS: Final[dict[str, str]] = {
    "ipc/beating.py": "when a managed worker was well",
    "ipc/control.py": "deadlines of an exchange, and a random first request id",
    "ipc/control_async.py": "the same deadlines on an event loop",
    "ipc/asking.py": "the deadline of asking for a permit",
    "ipc/attachment.py": "deadlines of a hello, the nonce, back-off",
    "ipc/client.py": "the clock that every guard of the process reads, the nonce, back-off",
    "ipc/forks.py": "when this process began, and a random name for its program",
    "supervisor/daemon.py": "the clock and the dice that every actor is given",
    "supervisor/lives.py": "the first pulse of a daemon",
    "supervisor/nursery.py": "the clock and the dice of its loop",
    "supervisor/priority.py": "how long a place where nobody reads is not complained about",
    "supervisor/logs.py": "the same, and how long children of a dead worker may go on logging",
    "supervisor/lock.py": "how long to wait for another supervisor's end",
    "supervisor/start.py": "the name of a checkpoint that is set aside",
    "supervisor/figures.py": "how long a measuring may take",
    "supervisor/process_identity.py": "how long the host slept, which the age of a process counts",
    "supervisor/control_server.py": "a test verb that stops the loop",
    "supervisor/view_server.py": "dates that people read",
    "supervisor/ctl/main.py": "the clock that every verb is given",
    "workers/surroundings.py": "the clocks, dice and waits that every handler is given",
    "workers/prober.py": "how long a probe took",
    "workers/memory/deadlines.py": "what is left of an operation's time",
    "workers/memory/engines.py": "the name under which a database file is made",
    "workers/memory/backing.py": "the wall clock by which cached pages have an age",
    "workers/memory/epochs.py": "words that nobody else draws, and when they were drawn",
    "workers/memory/group_commit.py": "the moment that a leader waits for others",
    "workers/memory/leases.py": "when a holder last moved, which other processes compare",
    "workers/memory/redis_cache.py": "how long a connection was idle, when a user was erased",
    "workers/memory/replay.py": "the rate and the back-off of replay, injected in tests",
    "workers/memory/replayer.py": "the clock that every post is given",
    "workers/memory/replay_thread.py": "how often the spool is looked after",
    "workers/memory/single_flight.py": "how long one waits for another's loading",
    "workers/memory/spool.py": "how old a measured size is, and the name of a file",
    "workers/memory/ids.py": "when an id is made, and its random bits",
    "workers/demo/": "a program that measures what happens",
}
"""The only files (or folders) that read a clock or roll dice, each with the reason; all others are told."""

BOUNDARIES: Final[dict[str, str]] = {
    "ipc/ending.py:Trial.__del__": "a second signal while a lost trial is given back",
    "ipc/ending.py:Ending._fire": "what the application's on_state_change raises is logged",
    "ipc/ending.py:_attributes": "an exception whose attributes cannot be read keeps no mark",
    "ipc/verdict.py:Verdict.asked": "an application's predicate that raises counts as False",
    "workers/classify.py:_attribute": "a property of somebody's exception may raise anything",
    "workers/memory/group_commit.py:GroupCommit._commit_all": "each ticket is told what is wrong with it",
    "workers/classify.py:_text": "an exception whose `__str__` raises says nothing",
    "workers/redact.py:describe": "an exception whose `__str__` raises says nothing",
    "workers/decorate.py:_handled.handled": "handling errors is what was asked for",
    "workers/decorate.py:_handled_async.handled": "handling errors is what was asked for",
    "workers/handler.py:MemoryErrorHandler.retry_operation": "raised again, unless a retry succeeds",
    "workers/handler.py:MemoryErrorHandler._retry_async": "raised again, unless a retry succeeds",
    "workers/handler.py:MemoryErrorHandler._log": "the application's log handler failed; the error matters",
    **{
        f"workers/memory/manager.py:EnhancedMemoryLayerManager.{function}": why
        for function, why in (
            ("keep", "whatever it was: what was said must not get lost"),
            ("delete_user", "whatever it was: the wish must not get lost"),
            ("_recall", "reading goes on with what there is"),
            ("_cached", "a cache is never needed"),
            ("_keep", "a cache is never needed"),
        )
    },
    "supervisor/nursery.py:Nursery.run": "it ends at once, with all that it has started",
    "workers/memory/replay.py:Replayer._insert": "it is classified: to wait, or to set a record aside",
    "workers/memory/replay.py:Replayer._erase": "whatever it is, others must not wait for it",
    "workers/memory/replayer.py:Turner._run": "raised again in the main thread, which ends by it",
    "workers/memory/replay_thread.py:ReplayThread._run": "the thread is what must not end",
    "supervisor/priority.py:StderrHandler.emit": "a record that cannot be shown must not stop who logs it",
    "supervisor/log_pipe.py:Mouth.get": "whatever a worker writes into its pipe, its next line is read",
    "supervisor/log_pipe.py:PipeHandler._text": "an argument that cannot be shown must not cost the line",
    "workers/prober.py:Prober._answer": "whatever it was, the supervisor is told",
    "workers/probes/function.py:prepare": "importing somebody's module may raise anything",
    "workers/probes/function.py:_call": "raising is how a function says no",
    "supervisor/birth.py:live": "whatever the target raised is logged, and is the exit code",
    "supervisor/actor.py:Stage._handle": "an actor's failure stays inside the actor",
    "supervisor/actor.py:Stage._failed": "so does its failure to restart",
}
"""`file:function` where `except Exception` may stand, each with the reason."""

WIDE: Final[dict[str, str]] = {}
"""`file:function` with more than six parameters, each with the reason."""

DRAWN: Final = {"ipc/layout.py"}
"""Files whose docstring is the drawing of their bytes, prose and all."""
