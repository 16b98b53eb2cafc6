"""The operator's service in its own messages; what is done to sequences is `test_sequence_admin.py`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from protos import sequence_admin_pb2 as pb
from serving.batching.lanes import Lanes
from serving.errors import InvalidRequest, UnknownModel
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.statuses import VersionStatus
from serving.protocol.methods import answered
from serving.protocol.sequence_service import MOST_LISTED, SERVICE, SequenceService
from serving.sequences import export_file
from serving.sequences.epochs import Epochs
from tests.simulation.virtual import VirtualClock
from tests.support.sequence_desk import Desk


class Models:
    """A stateful model `m`, and one that is not; as the service sees a manager."""

    def __init__(self, clock: VirtualClock) -> None:
        self.epochs = Epochs(100)
        self.exceed = self.epochs.exceed
        self._lanes = Lanes("m", self.epochs, clock)
        self.desk = Desk(clock, self._lanes)

    def lanes(self, name: str) -> Lanes | None:
        return self._lanes if name == "m" else None

    def known(self, name: str) -> object | None:
        return self if name in ("m", "stateless") else None

    def entries(self) -> list[VersionStatus]:
        return [VersionStatus(name=name, version="1", backend=f"that of {name}") for name in ("l", "m")]


def service_test(test: Callable[[Models, SequenceService], None]) -> Callable[[], None]:
    def run() -> None:
        clock = VirtualClock(0)

        def main() -> None:
            models = Models(clock)
            test(models, SequenceService(cast(ModelManager, models), release="0.0.7", now=lambda: "today"))
            clock.sleep(10_000)

        clock.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def one(id: int | str, model: str = "m", **more: Any) -> pb.OneRequest:
    return pb.OneRequest(model=model, id=pb.Id(number=id) if isinstance(id, int) else pb.Id(text=id), **more)


@service_test
def test_a_sequence_is_listed_shown_taken_along_ended_and_put_back(models: Models, service: SequenceService) -> None:
    for key in (("", 7), ("me", "7")):
        models.desk.steps(key, 0, 1)
    models.desk.all()
    listed = service.list(pb.ListRequest(model="m", most=5))
    assert [(each.version, each.live, each.numbered, each.state_bytes) for each in listed.versions] == [("1", 2, 2, 16)]
    assert [(each.id, each.caller, each.steps) for each in listed.sequences] == [
        (pb.Id(number=7), "", 2),
        (pb.Id(text="7"), "me", 2),
    ]
    assert len(service.list(pb.ListRequest(model="m")).sequences) == 0
    assert service.show(one("7")) == listed.sequences[1]
    assert service.show(one("7", caller="me")) == listed.sequences[1]
    exported = service.export(one("7"))
    taken = export_file.unpack(exported.file)
    assert taken[:-1] == ("m", "1", "that of m", "today", "0.0.7")
    ended = service.end(pb.EndRequest(one=one("7"), epoch=exported.sequence.epoch, steps=2))
    assert (ended.caller, ended.steps) == ("me", 2)
    with pytest.raises(InvalidRequest, match="has no sequence '7'"):
        service.show(one("7"))
    back = service.put(pb.ImportRequest(model="m", file=exported.file))
    assert (back.caller, back.epoch, back.steps, back.version) == ("me", exported.sequence.epoch, 2, "1")


@service_test
def test_what_is_no_file_or_of_another_model_is_refused(models: Models, service: SequenceService) -> None:
    models.desk.steps(("", 7), 0)
    models.desk.all()
    file = service.export(one(7)).file
    for content, message in (
        (b"", "the file cannot be used: it does not begin with"),
        (file[:-1], "the file cannot be used: its digest is wrong"),
        (export_file.pack(export_file.unpack(file)._replace(model="l")), "of model 'l', and is to be put into 'm'"),
        (export_file.pack(export_file.unpack(file)._replace(record=b"")), "the file cannot be used: it has 0 bytes"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            service.put(pb.ImportRequest(model="m", file=content, replace=True))
    assert service.show(one(7)).steps == 1


@service_test
def test_what_is_asked_of_nothing_is_refused(models: Models, service: SequenceService) -> None:
    for model, kind, message in (
        ("none", UnknownModel, "'none' is not found"),
        ("stateless", InvalidRequest, "model 'stateless' keeps no sequences"),
    ):
        with pytest.raises(kind, match=message):
            service.list(pb.ListRequest(model=model))
    for nobody in (pb.OneRequest(model="m"), one(0), one("")):
        with pytest.raises(InvalidRequest, match="no sequence is named"):
            service.show(nobody)
    with pytest.raises(InvalidRequest, match="at most 10000 are told"):
        service.list(pb.ListRequest(model="m", most=MOST_LISTED + 1))


@service_test
def test_the_table_has_every_method_that_is_declared(models: Models, service: SequenceService) -> None:
    declared = pb.DESCRIPTOR.services_by_name["SequenceAdmin"]
    assert declared.full_name == SERVICE
    table = {method.name: method for method in service.methods()}
    assert {name: method.request.DESCRIPTOR for name, method in table.items()} == {
        method.name: method.input_type for method in declared.methods
    }
    answer = answered(table["List"], pb.ListRequest(model="m").SerializeToString())
    assert isinstance(answer, bytes)
    assert [each.version for each in pb.ListResponse.FromString(answer).versions] == ["1"]
