from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListRequest(_message.Message):
    __slots__ = ("model", "most", "youngest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    YOUNGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    most: int
    youngest: bool
    def __init__(self, model: _Optional[str] = ..., most: _Optional[int] = ..., youngest: bool = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("versions", "sequences", "reading")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    sequences: _containers.RepeatedCompositeFieldContainer[Sequence]
    reading: bool
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., sequences: _Optional[_Iterable[_Union[Sequence, _Mapping]]] = ..., reading: bool = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "live", "numbered", "busy", "tombs", "state_bytes", "longest_idle_seconds", "shortest_idle_seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    NUMBERED_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    TOMBS_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LONGEST_IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SHORTEST_IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: str
    live: int
    numbered: int
    busy: int
    tombs: int
    state_bytes: int
    longest_idle_seconds: float
    shortest_idle_seconds: float
    def __init__(self, version: _Optional[str] = ..., live: _Optional[int] = ..., numbered: _Optional[int] = ..., busy: _Optional[int] = ..., tombs: _Optional[int] = ..., state_bytes: _Optional[int] = ..., longest_idle_seconds: _Optional[float] = ..., shortest_idle_seconds: _Optional[float] = ...) -> None: ...

class Id(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Sequence(_message.Message):
    __slots__ = ("id", "caller", "version", "epoch", "steps", "idle_seconds", "numbered", "broken_off", "busy", "state_bytes", "answers", "answer_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NUMBERED_FIELD_NUMBER: _ClassVar[int]
    BROKEN_OFF_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: Id
    caller: str
    version: str
    epoch: int
    steps: int
    idle_seconds: float
    numbered: bool
    broken_off: bool
    busy: bool
    state_bytes: int
    answers: int
    answer_bytes: int
    def __init__(self, id: _Optional[_Union[Id, _Mapping]] = ..., caller: _Optional[str] = ..., version: _Optional[str] = ..., epoch: _Optional[int] = ..., steps: _Optional[int] = ..., idle_seconds: _Optional[float] = ..., numbered: bool = ..., broken_off: bool = ..., busy: bool = ..., state_bytes: _Optional[int] = ..., answers: _Optional[int] = ..., answer_bytes: _Optional[int] = ...) -> None: ...

class OneRequest(_message.Message):
    __slots__ = ("model", "id", "caller")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    model: str
    id: Id
    caller: str
    def __init__(self, model: _Optional[str] = ..., id: _Optional[_Union[Id, _Mapping]] = ..., caller: _Optional[str] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("sequence", "file")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    sequence: Sequence
    file: bytes
    def __init__(self, sequence: _Optional[_Union[Sequence, _Mapping]] = ..., file: _Optional[bytes] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("model", "file", "replace", "any_weights")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ANY_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    file: bytes
    replace: bool
    any_weights: bool
    def __init__(self, model: _Optional[str] = ..., file: _Optional[bytes] = ..., replace: bool = ..., any_weights: bool = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("one", "epoch", "steps")
    ONE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    one: OneRequest
    epoch: int
    steps: int
    def __init__(self, one: _Optional[_Union[OneRequest, _Mapping]] = ..., epoch: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...
