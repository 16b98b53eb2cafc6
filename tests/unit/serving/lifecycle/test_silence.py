"""How long nobody has asked."""

from __future__ import annotations

from serving.lifecycle.silence import Silence
from tests.simulation.virtual import VirtualClock


def test_a_silence_begins_anew_with_each_request() -> None:
    clock = VirtualClock(1)

    def main() -> None:
        silence = Silence(clock)
        assert silence.lacks(5) == 5
        clock.sleep(3)
        assert silence.lacks(5) == 2
        silence.broken()
        assert silence.broken_ns == clock.now_ns()
        assert silence.lacks(5) == 5
        clock.sleep(7)
        assert silence.lacks(5) == 0

    clock.run(main)
