"""What `dynamic_batching` says of the queue, what is shown of it, and what contradicts itself."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import ModelConfigError
from serving.repository import queue_policies

ALL = """
dynamic_batching {
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { default_timeout_microseconds: 500 max_queue_size: 7 }
  priority_queue_policy {
    key: 1
    value { timeout_action: DELAY allow_timeout_override: true default_timeout_microseconds: 9 }
  }
}
parameters { key: "max_queue_bytes" value { string_value: "1000" } }
parameters { key: "max_padding_ratio" value { string_value: "0.25" } }
"""
READ = BatchPolicy(
    queue=QueuePolicy(timeout_ns=500_000, max_requests=7),
    levels=3,
    default_level=2,
    level_queues={1: QueuePolicy(timeout_ns=9_000, allows_less=True, delays=True)},
    max_queue_bytes=1000,
    max_padding_ratio=0.25,
)


def read(text: str) -> BatchPolicy:
    return queue_policies.batch_policy(text_format.Parse(text, pb.ModelConfig()), "here")


def test_levels_timeouts_and_limits_are_read() -> None:
    assert read(ALL) == READ
    assert read("dynamic_batching { preserve_ordering: true }") == BatchPolicy(keeps_order=True)
    assert read("") == BatchPolicy()


def test_a_level_without_a_policy_has_the_default_one() -> None:
    assert [READ.queue_of(level).max_requests for level in (1, 2, 3)] == [1024, 7, 7]
    assert [READ.level_of(priority) for priority in (0, 1, 2, 3, 4)] == [2, 1, 2, 3, 2]


DELAYS = "timeout_action: DELAY"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dynamic_batching { preferred_batch_size: 4 }", ["dynamic_batching.preferred_batch_size (larger"]),
        ("dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 1 }", []),
        (
            f"dynamic_batching {{ default_queue_policy {{ {DELAYS} }} }}",
            ["dynamic_batching.default_queue_policy.timeout_action (no request has a time-out"],
        ),
        (f"dynamic_batching {{ default_queue_policy {{ {DELAYS} default_timeout_microseconds: 1 }} }}", []),
        (f"dynamic_batching {{ default_queue_policy {{ {DELAYS} allow_timeout_override: true }} }}", []),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 "
            f"priority_queue_policy {{ key: 2 value {{ {DELAYS} }} }} "
            f"priority_queue_policy {{ key: 1 value {{ {DELAYS} default_timeout_microseconds: 1 }} }} }}",
            ["dynamic_batching.priority_queue_policy 2.timeout_action (no request has a time-out"],
        ),
        (
            'max_batch_size: 8 parameters { key: "max_padding_ratio" value { string_value: "0.25" } }',
            ["parameters.max_padding_ratio (without dynamic_batching every request is computed alone)"],
        ),
        (
            'max_batch_size: 8 dynamic_batching {} parameters { key: "max_padding_ratio" value { string_value: "0" } }',
            [],
        ),
        ('parameters { key: "max_padding_ratio" value { string_value: "0.25" } }', []),
        (ALL, []),
        ("", []),
    ],
)
def test_what_changes_nothing_for_want_of_something_else_is_named(text: str, told: list[str]) -> None:
    found = queue_policies.idle(text_format.Parse(text, pb.ModelConfig()))
    assert [said[: len(begin)] for said, begin in zip(found, told, strict=True)] == told


@pytest.mark.parametrize(
    "text", [ALL, "", "dynamic_batching { preserve_ordering: true priority_levels: 1 default_priority_level: 1 }"]
)
def test_what_is_shown_can_be_written_back(text: str) -> None:
    policy = read(text)
    shown = pb.ModelConfig(dynamic_batching=queue_policies.in_force(policy))
    shown.parameters["max_queue_bytes"].string_value = str(policy.max_queue_bytes)
    shown.parameters["max_padding_ratio"].string_value = str(policy.max_padding_ratio)
    assert queue_policies.batch_policy(shown, "here") == policy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "priority_levels: 2",
            "default_priority_level is not set; it must be within 1, .* and priority_levels 2: it is",
        ),
        ("priority_levels: 2 default_priority_level: 3", "default_priority_level is 3; it must be within 1"),
        ("default_priority_level: 1", "default_priority_level is 1, but priority_levels is not set: set it, or remove"),
        ("priority_levels: 1001 default_priority_level: 1", "priority_levels is 1001; at most 1000 are served"),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value {} }",
            "priority_queue_policy is given for level 3, but there are the levels 1 to 2",
        ),
        (
            "priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 0 value {} }",
            "given for level 0",
        ),
        ("priority_queue_policy { key: 1 value {} }", "for level 1, but priority_levels is not set"),
        (
            "preserve_ordering: true priority_levels: 2 default_priority_level: 1",
            "preserve_ordering and priority_levels 2 contradict each other",
        ),
        (
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 }",
            "preserve_ordering and timeout_action DELAY contradict each other.*use REJECT",
        ),
        (
            "preserve_ordering: true default_queue_policy { timeout_action: DELAY allow_timeout_override: true }",
            "timeout_action DELAY contradict",
        ),
        (
            "default_queue_policy { timeout_action: 7 }",
            "default_queue_policy: timeout_action is 7; it must be REJECT or",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, said: str) -> None:
    with pytest.raises(ModelConfigError, match=f"^here: .*{said}"):
        read(f"dynamic_batching {{ {text} }}")


def test_a_delay_that_never_comes_keeps_the_order() -> None:
    policy = read("dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }")
    assert policy.keeps_order


@pytest.mark.parametrize("said", ["", "0", "-1", "1.5", "many", "1" * 19])
def test_bytes_are_a_whole_number(said: str) -> None:
    with pytest.raises(
        ModelConfigError, match=r"max_queue_bytes is .*; it must be a whole number of bytes, at least 1"
    ):
        read(f'parameters {{ key: "max_queue_bytes" value {{ string_value: "{said}" }} }}')


@pytest.mark.parametrize("said", ["", "-0.1", "1.01", "half", "nan", "inf"])
def test_padding_is_a_share(said: str) -> None:
    with pytest.raises(ModelConfigError, match=r"max_padding_ratio is .*; it must be a number within 0, .* and 1"):
        read(f'parameters {{ key: "max_padding_ratio" value {{ string_value: "{said}" }} }}')
