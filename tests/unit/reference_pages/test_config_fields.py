"""Each field of config.pbtxt stands in one section of its page, and in the right one."""

from __future__ import annotations

import pytest

from protos import model_config_pb2 as pb
from reference_pages import config_fields
from serving.errors import ModelConfigError
from serving.repository import fields
from serving.repository.model_config import PARAMETERS, parse


def test_every_key_of_parameters_has_an_example_that_is_taken() -> None:
    assert set(config_fields.KEYS) == set(PARAMETERS)
    lines = [
        f'parameters {{ key: "{key}" value {{ string_value: "{example}" }} }}'
        for key, (example, _) in config_fields.KEYS.items()
    ]
    assert parse("\n".join(["sequence_batching {}", *lines]), "m").routes.canary_share == 0.05


def test_the_example_is_taken() -> None:
    assert parse(config_fields.EXAMPLE, "m").policy.max_rows == 32


def test_every_field_of_the_schema_is_in_one_section() -> None:
    refused = config_fields.refused()
    sections = [*fields.SERVED, *fields.IDLE, *refused]
    assert len(sections) == len(set(sections))
    assert {name.partition(".")[0] for name in sections} == {field.name for field in pb.ModelConfig.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    "text",
    [
        "ensemble_scheduling { step { model_name: 'm' } }",
        "instance_group { passive: true }",
        "input { name: 'x' optional: true }",
    ],
)
def test_what_is_listed_as_refused_is_refused(text: str) -> None:
    with pytest.raises(ModelConfigError) as refusal:
        parse(text, "m")
    named = str(refusal.value).partition("the field '")[2].partition("'")[0]
    assert any(named == each or named.startswith(f"{each}.") for each in config_fields.refused())


def test_the_page_says_types_as_the_schema_has_them() -> None:
    text = config_fields.page_text()
    for line in ("| `max_batch_size` | number |", "| `input.dims` | number[] |", "| `parameters` | map |"):
        assert line in text
