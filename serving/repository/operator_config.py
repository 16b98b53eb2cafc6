"""What the operator has decided about a model, as plain data: `config.pbtxt`, read and checked by `model_config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy
from serving.errors import ModelConfigError
from serving.machine.devices import CPU, cuda
from serving.repository.routes import Routes
from serving.sequences.policy import SequencePolicy
from serving.signature.controls import ControlInput


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """`config.pbtxt`, checked. `backend`, `device` and `threads` are None where the file leaves them to the server's flags.

    `count` instances run on each of `gpus`, or on the one device. `fallback` names backends, with a device or None, in
    the order in which they take over; None where the file does not say. `nonfinite` is "refuse" or "pass", or empty where
    that is left to the specification. `idle` names what is in the file and changes no answer. `sequences` is how those of a
    stateful model live, None for a stateless one, and `controls` are the inputs that its file is told about them by.
    """

    written: pb.ModelConfig
    policy: BatchPolicy
    backend: str | None
    device: str | None
    count: int = 1
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    fallback: tuple[tuple[str, str | None], ...] | None = None
    routes: Routes = dataclasses.field(default_factory=Routes)
    nonfinite: str = ""
    idle: tuple[str, ...] = ()
    sequences: SequencePolicy | None = None
    controls: tuple[ControlInput, ...] = ()

    def devices(self, device: str) -> list[str]:
        """The device of each instance, when `device` was chosen for the model."""
        on = [cuda(gpu) for gpu in self.gpus] if self.gpus and device != CPU else [device]
        return [each for each in on for _ in range(self.count)]

    def for_shadow(self) -> OperatorConfig:
        """The same for a shadow: one instance, and who computes it left open."""
        return dataclasses.replace(self, backend=None, device=None, count=1, gpus=(), fallback=None, routes=Routes())

    def versions(self, there: Sequence[int]) -> list[int]:
        """Which of the versions on disk are to be served, lowest first: those of the policy, and those with a label.

        Raises `ModelConfigError` if a version that is named is missing.
        """
        where, labelled = f"config.pbtxt of model '{self.written.name}'", set(self.routes.labels.values())
        shadow = self.routes.shadow.version if self.routes.shadow else None
        if missing := sorted((labelled | ({shadow} if shadow else set())) - set(there)):
            raise ModelConfigError(
                f"{where}: version_labels or shadow name {missing}; on disk there are {sorted(there)}"
            )
        policy = self.written.version_policy
        choice = policy.WhichOneof("policy_choice")
        if choice == "all":
            return sorted(there)
        if choice != "specific":
            return sorted({*sorted(there)[-(policy.latest.num_versions or 1) :], *labelled})
        if missing := sorted(set(policy.specific.versions) - set(there)):
            raise ModelConfigError(f"{where}: version_policy names {missing}; there are {sorted(there)}")
        if not policy.specific.versions:
            raise ModelConfigError(f"{where}: version_policy is specific and names no version")
        if unserved := sorted(labelled - set(policy.specific.versions)):
            raise ModelConfigError(
                f"{where}: version_labels names {unserved}, which version_policy does not serve: take them out of version_labels "
                "(and canary_share, where the canary goes), or add them to version_policy"
            )
        return sorted(set(policy.specific.versions))
