"""The index of a server with what its configurations say of each version that answers.

The index of the protocol knows names, states and reasons. What computes, where, and how well it was proved stands in the
version's configuration: ours says it in `parameters` whose keys begin with `lstm_serving.`; of another server's the backend and
the instances can be told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from admin.configuration import instances
from admin.server import AdminError, Server, one_line
from commands.table import aligned
from protos.model_config_pb2 import ModelConfig

TOLD = "lstm_serving."
ALWAYS = ("name", "version", "state", "reason")
OF_CONFIG = (
    *("backend", "device", "instances", "batched", "chosen", "tolerance", "verified", "stateful", "measured", "labels"),
)

Entry = Mapping[str, str]


def entries(server: Server, wanted: Sequence[str] = ()) -> list[dict[str, str]]:
    """Every version that the server knows, or those of the models `wanted`; an empty text stands for what is not known of it.

    Raises `AdminError`, among others for a model that the server does not know.
    """
    found = []
    known = server.call("RepositoryIndex").models
    names = dict.fromkeys(one.name for one in known)
    if missing := [name for name in wanted if name not in names]:
        raise AdminError(f"there is no model '{missing[0]}'; the server knows {', '.join(names) or 'none'}")
    for one in known:
        if wanted and one.name not in wanted:
            continue
        entry = {name: str(getattr(one, name)) for name in ALWAYS}
        config = _config(server, one.name, one.version) if one.state == "READY" else None
        found.append(entry | (of_config(config) if config else dict.fromkeys(OF_CONFIG, "")))
    return found


def _config(server: Server, name: str, version: str) -> ModelConfig | None:
    try:
        return server.config(name, version)
    except AdminError:  # it has left since the index was made, or this server tells no configuration
        return None


def of_config(config: ModelConfig) -> dict[str, str]:
    """What a configuration says of a version."""
    devices, count = instances(config)
    found = {"backend": config.backend or config.platform, "device": devices, "instances": count}
    told = {
        key.removeprefix(TOLD): value.string_value for key, value in config.parameters.items() if key.startswith(TOLD)
    }
    said = {name: told[name] for name in OF_CONFIG if name in told}
    return dict.fromkeys(OF_CONFIG, "") | found | said


def as_table(found: Sequence[Entry]) -> str:
    """A line for each version; a column that no version fills is left out, the reason stands last."""
    if not found:
        return "the repository holds no model"
    middle = [name for name in OF_CONFIG if any(entry[name] for entry in found)]
    columns = ("name", "version", "state", *middle, "reason")
    lines = [[one_line(entry[name]) or "-" for name in columns] for entry in found]
    return "\n".join(aligned([("model", *columns[1:]), *lines]))


def as_json(found: Sequence[Entry]) -> str:
    """A list of objects with the same keys each; what is not known is an empty text."""
    return json.dumps(found, indent=2)
