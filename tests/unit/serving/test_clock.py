"""The system's time and threads, as far as there is something to decide."""

from __future__ import annotations

import queue
import threading

from serving.clock import SYSTEM


def test_both_clocks_run_alike() -> None:
    at_ns = SYSTEM.now_ns()
    assert SYSTEM.wall_ms(at_ns + 5_000_000) - SYSTEM.wall_ms(at_ns) == 5


def test_whoever_holds_a_lock_may_take_it_again() -> None:
    for lock in (SYSTEM.lock(), SYSTEM.condition()):
        with lock, lock:
            pass


def test_work_runs_on_a_thread_that_does_not_keep_the_process_alive() -> None:
    ran: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    started = SYSTEM.start(lambda: ran.put(threading.current_thread()), "worker of m")
    thread = ran.get(timeout=10)
    started.join(10)
    assert (thread.name, thread.daemon, started.is_alive()) == ("worker of m", True, False)
