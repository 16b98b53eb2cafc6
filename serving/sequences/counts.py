"""What has happened to the sequences of a version: plain counts, guarded by the lock of its lanes."""

from __future__ import annotations

import dataclasses

# Why a sequence has ended.
END, IDLE, RESTARTED, EVICTED = "end", "idle", "restarted", "evicted"
REMOVED, CARRIED, EXITING = "version_gone", "carried_over", "server_exiting"
BY_HAND, LOST = "ended_by_operator", "store_lost"
ENDS = (END, IDLE, RESTARTED, EVICTED, REMOVED, CARRIED, EXITING, BY_HAND, LOST)
FOREIGN, NO_ROOM = "store_other_version", "store_no_room"  # it is in the store, and does not live here

# Why a step was refused by its sequence; what is wrong with a request by itself is counted with the requests alone.
NO_START, GAP, OLD_STEP, OLD_EPOCH, CONTENT = "no_start", "gap", "old_step", "old_epoch", "other_content"
NUMBERING, HOLE, EARLIER_FAILED, TOO_MANY, HOUSE_FULL = (
    "numbering", "hole", "earlier_step_failed", "too_many_unanswered", "house_full"
)  # fmt: skip
REFUSALS = (
    NO_START, GAP, OLD_STEP, OLD_EPOCH, CONTENT, NUMBERING, HOLE, EARLIER_FAILED, TOO_MANY, HOUSE_FULL,
)  # fmt: skip


@dataclasses.dataclass
class SequenceCounts:
    """Since the version was first loaded; they go on where they were when it is loaded anew."""

    starts: int = 0
    steps: int = 0
    repeats: int = 0
    restored: int = 0
    ended: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    refused: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))
