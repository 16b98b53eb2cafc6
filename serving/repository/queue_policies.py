"""Who waits for a model, how long, and in which order: what `dynamic_batching` of `config.pbtxt` decides, or the strategy of
`sequence_batching` in its place, and `max_queue_bytes` and `max_padding_ratio` of its `parameters`.
"""

from __future__ import annotations

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import ModelConfigError
from serving.repository import stateful

DEFAULTS = BatchPolicy()
MAX_DELAY_MICROSECONDS = 60_000_000
MAX_LEVELS = 1000
MAX_QUEUE_BYTES, MAX_PADDING_RATIO = "max_queue_bytes", "max_padding_ratio"
MOST_DIGITS = 18


def batch_policy(written: pb.ModelConfig, where: str) -> BatchPolicy:
    """How requests wait and are batched. Raises `ModelConfigError`."""
    if written.max_batch_size < 0:
        raise ModelConfigError(
            f"{where}: max_batch_size is {written.max_batch_size}; it must be at least 1, or 0 for {DEFAULTS.max_rows}"
        )
    max_rows = written.max_batch_size or DEFAULTS.max_rows
    batching = stateful.batching(written, where)
    if batching.max_queue_delay_microseconds > MAX_DELAY_MICROSECONDS:
        raise ModelConfigError(
            f"{where}: max_queue_delay_microseconds is {batching.max_queue_delay_microseconds}; "
            f"at most {MAX_DELAY_MICROSECONDS} (a minute) is allowed"
        )
    for rows in batching.preferred_batch_size:
        if not 1 <= rows <= max_rows:
            raise ModelConfigError(
                f"{where}: preferred_batch_size {rows} is not within 1 and max_batch_size {max_rows}"
            )
    _check_levels(batching, where)
    policy = BatchPolicy(
        max_rows=max_rows,
        max_delay_ns=batching.max_queue_delay_microseconds * 1000,
        preferred_rows=tuple(sorted(batching.preferred_batch_size)),
        dynamic=written.WhichOneof("scheduling_choice") is not None or written.max_batch_size == 0,
        queue=_queue(batching.default_queue_policy, f"{where}: default_queue_policy"),
        levels=batching.priority_levels or 1,
        default_level=batching.default_priority_level or 1,
        level_queues={
            level: _queue(queue, f"{where}: priority_queue_policy {level}")
            for level, queue in sorted(batching.priority_queue_policy.items())
        },
        max_queue_bytes=_max_bytes(written, where),
        max_padding_ratio=_max_padding(written, where),
        keeps_order=batching.preserve_ordering,
    )
    _check_order(policy, where)
    return policy


def in_force(policy: BatchPolicy) -> pb.ModelDynamicBatching:
    """The same as the ModelConfig RPC shows it, every default filled in."""
    batching = pb.ModelDynamicBatching(
        preferred_batch_size=policy.preferred_rows,
        max_queue_delay_microseconds=policy.max_delay_ns // 1000,
        preserve_ordering=policy.keeps_order,
        default_queue_policy=_shown(policy.queue),
    )
    if policy.levels > 1 or policy.level_queues:
        batching.priority_levels, batching.default_priority_level = policy.levels, policy.default_level
        for level, queue in policy.level_queues.items():
            batching.priority_queue_policy[level].CopyFrom(_shown(queue))
    return batching


def idle(written: pb.ModelConfig) -> tuple[str, ...]:
    """What is set and changes no answer, as something else is not set; each with what that is."""
    batching = written.dynamic_batching
    found = []
    if batching.preferred_batch_size and not batching.max_queue_delay_microseconds:
        found.append(
            "dynamic_batching.preferred_batch_size (larger batches are cut to it, but without max_queue_delay_microseconds none "
            "waits for it)"
        )
    oldest = written.sequence_batching.oldest
    if oldest.preferred_batch_size and not oldest.max_queue_delay_microseconds:
        found.append(
            "sequence_batching.oldest.preferred_batch_size (larger batches are cut to it, but without "
            "max_queue_delay_microseconds none waits for it)"
        )
    queues = [("default_queue_policy", batching.default_queue_policy)]
    queues += [
        (f"priority_queue_policy {level}", queue) for level, queue in sorted(batching.priority_queue_policy.items())
    ]
    found += [
        f"dynamic_batching.{name}.timeout_action (no request has a time-out: set default_timeout_microseconds or "
        "allow_timeout_override)"
        for name, queue in queues
        if queue.timeout_action == pb.ModelQueuePolicy.DELAY
        and not (queue.default_timeout_microseconds or queue.allow_timeout_override)
    ]
    alone = written.max_batch_size and not (
        written.HasField("dynamic_batching") or written.HasField("sequence_batching")
    )
    if MAX_PADDING_RATIO in written.parameters and alone:
        found.append(f"parameters.{MAX_PADDING_RATIO} (without dynamic_batching every request is computed alone)")
    return tuple(found)


def _check_levels(batching: pb.ModelDynamicBatching, where: str) -> None:
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels > MAX_LEVELS:
        raise ModelConfigError(f"{where}: priority_levels is {levels}; at most {MAX_LEVELS} are served")
    if levels and not 1 <= default <= levels:
        raise ModelConfigError(
            f"{where}: default_priority_level is {default or 'not set'}; it must be within 1, which is served first, and "
            f"priority_levels {levels}: it is the level of requests that name none"
        )
    if none := [level for level in sorted(batching.priority_queue_policy) if not 1 <= level <= levels]:
        there = f"there are the levels 1 to {levels}" if levels else "priority_levels is not set"
        raise ModelConfigError(f"{where}: priority_queue_policy is given for level {none[0]}, but {there}")
    if default and not levels:
        raise ModelConfigError(
            f"{where}: default_priority_level is {default}, but priority_levels is not set: set it, or remove both"
        )


def _check_order(policy: BatchPolicy, where: str) -> None:
    """Raises `ModelConfigError` where answers are to keep an order that the queue does not."""
    if not policy.keeps_order:
        return
    if policy.levels > 1:
        raise ModelConfigError(
            f"{where}: preserve_ordering and priority_levels {policy.levels} contradict each other: requests of a lower level "
            "would wait for the answers to those behind them; remove one of them"
        )
    queues = (policy.queue, *policy.level_queues.values())
    if any(queue.delays and (queue.timeout_ns or queue.allows_less) for queue in queues):
        raise ModelConfigError(
            f"{where}: preserve_ordering and timeout_action DELAY contradict each other: the answers to others would wait for "
            "those that were put behind them; use REJECT, or remove preserve_ordering"
        )


def _queue(written: pb.ModelQueuePolicy, where: str) -> QueuePolicy:
    if written.timeout_action not in pb.ModelQueuePolicy.TimeoutAction.values():
        raise ModelConfigError(f"{where}: timeout_action is {written.timeout_action}; it must be REJECT or DELAY")
    return QueuePolicy(
        max_requests=written.max_queue_size or DEFAULTS.queue.max_requests,
        timeout_ns=written.default_timeout_microseconds * 1000,
        allows_less=written.allow_timeout_override,
        delays=written.timeout_action == pb.ModelQueuePolicy.DELAY,
    )


def _shown(queue: QueuePolicy) -> pb.ModelQueuePolicy:
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.DELAY if queue.delays else pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=queue.timeout_ns // 1000,
        allow_timeout_override=queue.allows_less,
        max_queue_size=queue.max_requests,
    )


def _max_bytes(written: pb.ModelConfig, where: str) -> int:
    if MAX_QUEUE_BYTES not in written.parameters:
        return DEFAULTS.max_queue_bytes
    said = written.parameters[MAX_QUEUE_BYTES].string_value
    if not (said.isascii() and said.isdigit() and len(said) <= MOST_DIGITS and int(said)):
        raise ModelConfigError(
            f"{where}: {MAX_QUEUE_BYTES} is {said!r}; it must be a whole number of bytes, at least 1"
        )
    return int(said)


def _max_padding(written: pb.ModelConfig, where: str) -> float:
    if MAX_PADDING_RATIO not in written.parameters:
        return DEFAULTS.max_padding_ratio
    said = written.parameters[MAX_PADDING_RATIO].string_value
    try:
        ratio = float(said)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise ModelConfigError(
            f"{where}: {MAX_PADDING_RATIO} is {said!r}; it must be a number within 0, for batches of equal lengths only, and 1"
        )
    return ratio
