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


def test_items_are_begun_in_order_and_worked_on_side_by_side() -> None:
    """Two threads take three items: the third goes to whoever is through first."""
    both = threading.Barrier(2, timeout=20)
    begun: list[str] = []
    threads = set[str]()

    def work(item: str) -> None:
        begun.append(item)
        threads.add(threading.current_thread().name)
        if item != "c":
            both.wait()

    SYSTEM.side_by_side(work, ["a", "b", "c"], 2, "beside")
    assert (sorted(begun), begun[-1]) == (["a", "b", "c"], "c")
    assert threads == {threading.current_thread().name, "beside"}
    SYSTEM.side_by_side(begun.append, [], 8, "beside")
    assert len(begun) == 3
