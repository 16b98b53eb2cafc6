"""Who answers a request that names no version, or names one by a label: decided from `parameters` of `config.pbtxt`.

    parameters { key: "version_labels" value { string_value: "stable=1,canary=2" } }
    parameters { key: "canary_share"   value { string_value: "0.05" } }
    parameters { key: "shadow"         value { string_value: "2/torchscript@cpu" } }
    parameters { key: "shadow_share"   value { string_value: "0.1" } }

A label is taken wherever a version is. Requests that name no version go to the one labelled `stable`, if there is one, and with
`canary_share` so many of them to the one labelled `canary`. The shadow, a version, a backend or both, gets copies of its
share of the requests, and nobody gets its answers. Shares are dealt, not drawn; of any hundred requests in a row, a
share of 0.05 gets five.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

STABLE, CANARY = "stable", "canary"
KEYS = ("version_labels", "canary_share", "shadow", "shadow_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a shadow is: a version (None: the one that answers), a backend and a device (None: as the server chooses)."""

    version: int | None = None
    backend: str | None = None
    device: str | None = None

    def __str__(self) -> str:
        place = f"{self.backend or ''}{'@' if self.device else ''}{self.device or ''}"
        return "/".join(part for part in (str(self.version or ""), place) if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Routes:
    """The routing of one model. `labels` maps a label to a version; shares are from 0 to 1."""

    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    canary_share: float = 0.0
    shadow: Target | None = None
    shadow_share: float = 0.0

    def version(self, asked: str) -> str:
        """The version that a client means: the one behind a label, else what it has said."""
        return str(self.labels[asked]) if asked in self.labels else asked

    def unshadowed(self) -> Routes:
        """These without the shadow."""
        return dataclasses.replace(self, shadow=None, shadow_share=0.0)


def parse(parameters: Mapping[str, str], backend_name: Callable[[str], str | None]) -> Routes:
    """The routes that `parameters` ask for; `backend_name` gives our name of a backend, None for one that is not known.

    Raises `ValueError` with what is wrong, why, and what is allowed.
    """
    labels = _labels(parameters.get("version_labels", ""))
    canary_share = _share(parameters, "canary_share")
    if canary_share and not {STABLE, CANARY} <= labels.keys():
        raise ValueError(
            f"canary_share divides the requests between the labels {STABLE} and {CANARY}, and version_labels sets "
            f'{", ".join(labels) or "none"}; write version_labels: "{STABLE}=1,{CANARY}=2", or take '
            "canary_share out"
        )
    shadow, shadow_share = parameters.get("shadow", ""), _share(parameters, "shadow_share")
    if bool(shadow) != bool(shadow_share):
        raise ValueError("shadow and shadow_share go together: what gets copies, and of which share of the requests")
    return Routes(
        labels=labels,
        canary_share=canary_share,
        shadow=target(shadow, labels, backend_name) if shadow else None,
        shadow_share=shadow_share,
    )


def target(text: str, labels: Mapping[str, int], backend_name: Callable[[str], str | None]) -> Target:
    """A shadow as it is written: VERSION, LABEL, BACKEND, BACKEND@DEVICE or VERSION/BACKEND@DEVICE. Raises `ValueError`."""
    place, _, device = text.partition("@")
    first, slash, second = place.partition("/")
    version = str(labels.get(first, first))
    whole = re.fullmatch(r"[1-9][0-9]{0,17}", version) is not None
    named = second if slash else "" if whole else first
    backend = backend_name(named) if named else None
    if (backend is None and (named or slash or device)) or (slash and not whole) or not (named or whole):
        raise ValueError(
            f"shadow is {text!r}; it must be a version or a label, a backend as in torchscript or torchscript@cuda:0, or "
            "both as in 2/torchscript"
        )
    number = int(version) if slash or not named else None
    return Target(version=number, backend=backend, device=device or None)


def _labels(text: str) -> dict[str, int]:
    labels = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)\s*=\s*([1-9][0-9]{0,17})", entry)
        if match is None or match[1] in labels:
            raise ValueError(
                f'version_labels has {entry!r}; it must be a list such as "{STABLE}=1,{CANARY}=2", each label once, '
                "beginning with a letter, and each version a whole number from 1"
            )
        labels[match[1]] = int(match[2])
    return labels


def _share(parameters: Mapping[str, str], key: str) -> float:
    text = parameters.get(key, "0")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{key} is {text!r}; it must be a number from 0 to 1")
    return share
