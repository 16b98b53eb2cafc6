"""What to do about a repository that has changed on disk: a pure decision on what was seen, now and before.

A change is acted upon when it has been seen twice, so that a folder which is still being copied is left alone until it
is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What identifies the content of each model's folder; any value that can be compared.
Seen = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Actions:
    """Models to load (or load again) and to unload, by name, sorted."""

    load: list[str]
    unload: list[str]


def decide(acted_on: Seen, before: Seen, now: Seen) -> Actions:
    """`acted_on` is what the models were when they were last loaded, or tried to; `before` is the previous look."""
    settled = {name for name, content in now.items() if before.get(name) == content}
    return Actions(
        load=sorted(name for name in settled if acted_on.get(name) != now[name]),
        unload=sorted(name for name in acted_on if name not in now and name not in before),
    )
