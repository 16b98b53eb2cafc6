"""The simulated clock itself: what runs on it behaves as on the system's, in an order that the seed decides."""

from __future__ import annotations

import pytest

from tests.simulation.virtual import Stuck, VirtualClock

HOUR = 3600.0


def test_time_passes_only_when_nobody_can_go_on() -> None:
    clock, seen = VirtualClock(0), list[tuple[str, int]]()

    def sleeper(name: str, seconds: float) -> None:
        clock.sleep(seconds)
        seen.append((name, clock.now_ns()))

    def main() -> None:
        threads = [clock.start(lambda n=n: sleeper(str(n), n * HOUR), str(n)) for n in (2, 1, 3)]  # type: ignore[misc]
        for thread in threads:
            thread.join()
            assert not thread.is_alive()

    clock.run(main)
    assert seen == [(str(n), int(n * HOUR * 1e9)) for n in (1, 2, 3)]


def test_a_condition_tells_those_who_wait_and_lets_them_give_up() -> None:
    clock, told = VirtualClock(3), list[object]()

    def main() -> None:
        changed, items = clock.condition(), list[int]()

        def consumer() -> None:
            with changed:
                changed.wait_for(lambda: items)
                told.append(items.pop())
                told.append(changed.wait(1.0))  # nobody tells any more

        thread = clock.start(consumer, "consumer")
        with changed:
            items.append(7)
            changed.notify()
        thread.join()
        told.append(clock.now_ns())

    clock.run(main)
    assert told == [7, False, int(1e9)]


def test_a_lock_is_held_by_one_and_taken_again_by_its_holder() -> None:
    for seed in range(50):
        clock, inside = VirtualClock(seed), list[int]()

        def main(clock: VirtualClock = clock, inside: list[int] = inside) -> None:
            lock = clock.lock()

            def enter() -> None:
                with lock, lock:
                    inside.append(1)
                    clock.sleep(0.1)
                    assert len(inside) == 1
                    inside.pop()

            for thread in [clock.start(enter, f"thread {n}") for n in range(4)]:
                thread.join()

        clock.run(main)
        assert clock.now_ns() == int(0.4e9)


def test_what_can_never_go_on_is_told() -> None:
    clock = VirtualClock(0)
    with pytest.raises(Stuck, match="nobody can go on: main waits for news"):
        clock.run(lambda: _wait_for_ever(clock))


def test_what_is_left_over_is_told() -> None:
    clock = VirtualClock(0)
    with pytest.raises(Stuck, match="left over at the end: forgotten"):
        clock.run(lambda: clock.start(lambda: clock.sleep(1), "forgotten") and None)


def test_what_a_thread_raises_is_raised() -> None:
    clock = VirtualClock(0)
    with pytest.raises(ZeroDivisionError):
        clock.run(lambda: clock.start(lambda: 1 // 0 and None, "wrong").join())


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_decides_the_order(seed: int) -> None:
    def order(seed: int) -> list[int]:
        clock, seen = VirtualClock(seed), list[int]()

        def main() -> None:
            for thread in [clock.start(lambda n=n: seen.append(n), str(n)) for n in range(6)]:  # type: ignore[misc]
                thread.join()

        clock.run(main)
        return seen

    assert order(seed) == order(seed)
    assert len({tuple(order(each)) for each in range(20)}) > 10, "all seeds alike"


def _wait_for_ever(clock: VirtualClock) -> None:
    changed = clock.condition()
    with changed:
        changed.wait()
