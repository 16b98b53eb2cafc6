"""Requests that are not even parsed: what was seen before is recognised, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from serving.errors import ServingError
from serving.loading.order import ServerDefaults
from serving.protocol import request, templates
from serving.protocol.answers import varint
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.codes import REFUSALS
from serving.protocol.inference import Inference
from serving.protocol.plans import Plans
from serving.protocol.templates import LONGEST, SELDOM, TEMPLATE_BYTES, Head, Template, Templates, head_of
from serving.signature.spec import MaskedBy
from serving.telemetry.ended import Recorder
from tests.support import fake_models
from tests.support.fake_models import spec
from tests.support.loading import request_of
from tests.support.managed import let_in, managing
from tests.support.request_corpus import KeptCall

LIMITS = Limits(max_rows=4, max_steps=50, finite_only=True)
SHAPES = {"x": (1, 2, 3), "h0": (1, 1, 4), "c0": (1, 1, 4)}
MUTATIONS = 4000
NAME, VERSION, ID, RAW = b"\x0a", b"\x12", b"\x1a", b"\x3a"


def field(tag: bytes, content: bytes) -> bytes:
    """A field with a length before it, as protobuf writes it."""
    return tag + varint(len(content)) + content


def sent(*, id: str = "7", names: Sequence[str] = ("x",), value: float = 1.0, **sizes: tuple[int, ...]) -> bytes:
    """One row of two steps, or inputs of other sizes; with `names` the state too."""
    made = pb.ModelInferRequest(model_name="m", id=id)
    for name in names:
        array = np.full(sizes.get(name, SHAPES[name]), value, np.float32) if name != "lengths" else np.array([2])
        datatype = {"float32": "FP32", "int64": "INT64"}[array.dtype.name]
        made.inputs.add(name=name, datatype=datatype, shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return made.SerializeToString()


# How a request begins.


@pytest.mark.parametrize(
    ("payload", "head"),
    [
        (NAME + b"\1m*", Head("m", "", "", 3)),
        (NAME + b"\1m" + VERSION + b"\0012*", Head("m", "2", "", 6)),
        (NAME + b"\1m" + ID + b"\0027a*", Head("m", "", "7a", 7)),
        (NAME + b"\1m" + VERSION + b"\0012" + ID + b"\0027a*", Head("m", "2", "7a", 10)),
        (NAME + b"\0*", Head("", "", "", 2)),
        (NAME + b"\1m" + VERSION + b"\0" + ID + b"\0*", Head("m", "", "", 7)),
        (field(NAME, "é☺".encode()) + b"*", Head("é☺", "", "", 7)),
        (field(NAME, b"a" * 127) + field(ID, b"b" * 127) + b"*", Head("a" * 127, "", "b" * 127, 258)),
        # Whatever is out of its order is not of the head.
        (NAME + b"\1m" + ID + b"\0017" + VERSION + b"\0012", Head("m", "", "7", 6)),
        (NAME + b"\1m" + NAME + b"\1n*", Head("m", "", "", 3)),
        (NAME + b"\1m" + ID + b"\0017" + ID + b"\0018*", Head("m", "", "7", 6)),
        # What protobuf would not write so is parsed.
        (b"", None),
        (b"*", None),
        (VERSION + b"\0012" + NAME + b"\1m*", None),
        (ID + b"\0017*", None),
        (field(NAME, b"a" * 128) + b"*", None),
        (NAME + b"\1m" + field(VERSION, b"2" * 128) + b"*", None),
        (NAME + b"\1m" + field(ID, b"b" * 128) + b"*", None),
        (NAME + b"\x81\0m*", None),
        (NAME + b"\1\xff*", None),
        (NAME + b"\1m" + VERSION + b"\1\xff*", None),
        (NAME + b"\1m" + ID + b"\1\xff*", None),
        # What has nothing behind it asks for nothing.
        (NAME, None),
        (NAME + b"\1m", None),
    ],
)
def test_the_head_of_a_request(payload: bytes, head: Head | None) -> None:
    assert head_of(payload) == head


def test_the_head_of_whatever_is_cut_off_says_what_protobuf_says_or_nothing() -> None:
    whole = NAME + b"\3mod" + VERSION + b"\00212" + field(ID, "é7".encode()) + b"*"
    heads = []
    for end in range(len(whole) + 1):
        head = head_of(whole[:end])
        try:
            message = pb.ModelInferRequest.FromString(whole[:end])
        except DecodeError:
            continue
        if head:
            heads.append(end)
            assert head[:3] == (message.model_name, message.model_version, message.id)
    assert heads == [len(whole) - 1], "where the id ends; before that nothing tells a head from a piece of one"


# What a template is made of, and what is recognised by it.


def decode(known: Plans, payload: bytes) -> Decoded:
    """As an inference does: by a template where one fits, else parsed."""
    head = head_of(payload)
    template = known.templates.find(payload, head.end) if head else None
    if head and template:
        return template.decode(payload, head.end)
    return known.decode(request.message(payload), payload)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the requests that were parsed."""
    ids: list[str] = []
    read = request.message

    def noted(payload: bytes) -> pb.ModelInferRequest:
        message = read(payload)
        ids.append(message.id)
        return message

    monkeypatch.setattr(request, "message", noted)
    return ids


def template_of(payload: bytes, known: Plans | None = None) -> Template | None:
    """The template that a second request like this one finds, after it was asked twice: to make a plan, and by that plan."""
    known = known or Plans(spec(), LIMITS)
    for _ in range(2):
        decode(known, payload)
    head = head_of(payload)
    return known.templates.find(payload, head.end) if head else None


IDS = ["first", "second", "", "longer than any of them", "a" * 127]


def test_what_differs_in_id_and_elements_alone_is_not_parsed(parsed: list[str]) -> None:
    known = Plans(spec(), LIMITS)
    for id in IDS:
        payload = sent(id=id, names=("x", "lengths", "h0", "c0"), value=len(id))
        decoded = decode(known, payload)
        assert list(decoded.inputs) == ["x", "lengths", "h0", "c0"]
        assert decoded.inputs["lengths"].tolist() == [2]
        assert decoded.inputs["c0"].tolist() == [[[len(id)] * 4]]
        assert not decoded.inputs["x"].flags.owndata, "elements are not copied"
    assert [parsed.count(id) for id in IDS] == [2, 1, 0, 0, 0], "the first makes the plan, the second the template"


@pytest.mark.parametrize(
    "payload",
    [
        sent(id="a" * 128),
        sent() + b"\xa0\x06\x01",
        sent() + b"\xa5\x06abcd",
        sent() + b"\xa2\x06\1A",
        sent(id="") + field(ID, b"7"),
        sent() + field(NAME, b"m"),
        sent().replace(RAW + b"\x18", RAW + b"\x98\0"),
        sent().replace(NAME + b"\1m", NAME + b"\1m" + NAME + b"\1m"),
    ],
    ids=["a long id", "an unknown number", "unknown bytes", "an unknown text", "the id at the end", "the name again",
         "a length of too many bytes", "the name twice"],
)  # fmt: skip
def test_what_protobuf_would_not_write_so_is_parsed_every_time(payload: bytes) -> None:
    assert template_of(payload) is None


def test_what_was_never_right_leaves_no_template() -> None:
    known = Plans(spec(), LIMITS)
    for payload in (sent(value=np.nan), sent(names=("x", "h0")), sent(x=(5, 2, 3)), sent(x=(1, 51, 3))):
        for _ in range(3):
            with pytest.raises(ServingError):
                decode(known, payload)
        head = head_of(payload)
        assert head
        assert known.templates.find(payload, head.end) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_elements_are_checked_every_time(bad: float) -> None:
    known = Plans(spec(), LIMITS)
    assert template_of(sent(), known)
    with pytest.raises(ServingError, match=r"finite|nan|inf"):
        decode(known, sent(value=bad))


def test_lengths_are_checked_every_time() -> None:
    known, right = Plans(spec(), LIMITS), sent(names=("x", "lengths"))
    assert template_of(right, known)
    for wrong in (0, 3, -1):
        payload = right[:-8] + np.array([wrong], np.int64).tobytes()
        with pytest.raises(ServingError, match="lengths"):
            decode(known, payload)
    shorter = decode(known, right[:-8] + np.array([1], np.int64).tobytes())
    assert shorter.inputs["lengths"].tolist() == [1]


# How many there are.


def some_template(known: Templates, description_bytes: int, steps: int) -> bytes:
    """A request of its own length and about so long a description, offered as one that was right."""
    made = pb.ModelInferRequest.FromString(sent(x=(1, steps, 3)))
    made.parameters["p" * description_bytes].bool_param = True
    payload = made.SerializeToString()
    whole = Plans(spec(), LIMITS, 0)
    known.keep(payload, whole.decode(pb.ModelInferRequest.FromString(payload), payload))
    return payload


def found(known: Templates, payload: bytes) -> bool:
    head = head_of(payload)
    assert head
    return known.find(payload, head.end) is not None


def test_a_file_of_others_that_is_told_its_true_steps_is_told_none_that_are_not_there() -> None:
    told = Plans(dataclasses.replace(spec(), lengths=None, masks=MaskedBy("lengths", "x", 64)), LIMITS)
    right = sent(names=("x", "lengths"))
    assert template_of(right, told)
    for wrong in (0, 3, -1):
        with pytest.raises(
            ServingError, match=rf"'lengths' .* holds {wrong}, but every length must be within 1 and the 2"
        ):
            decode(told, right[:-8] + np.array([wrong], np.int64).tobytes())


def test_they_are_bounded_and_the_oldest_go_first() -> None:
    room = 4 * (TEMPLATE_BYTES + LONGEST)
    known = Templates(spec(), LIMITS, max_bytes=room)
    payloads = [some_template(known, 1000, steps) for steps in range(1, 15)]
    assert known._bytes_left >= 0
    kept = [found(known, payload) for payload in payloads]
    assert kept == sorted(kept), "the newest are kept"
    assert sum(kept) >= 10
    for steps in range(15, 50):
        payloads += [some_template(known, 7000, steps) for _ in range(SELDOM)]
        assert known._bytes_left == room - sum(template.cost for template in known._templates.values()) >= 0
    assert not found(known, payloads[0])


def test_what_takes_the_place_of_another_gives_its_bytes_back() -> None:
    known = Templates(spec(), LIMITS, max_bytes=10 * (TEMPLATE_BYTES + LONGEST))
    for _ in range(20 * SELDOM):
        some_template(known, 5000, 1)
    assert len(known._templates) == 1
    assert known._bytes_left > 9 * (TEMPLATE_BYTES + LONGEST)


@pytest.mark.parametrize(("description_bytes", "kept"), [(10, True), (LONGEST - 300, True), (LONGEST, False)])
def test_a_long_description_is_not_kept(description_bytes: int, kept: bool) -> None:
    known = Templates(spec(), LIMITS)
    assert found(known, some_template(known, description_bytes, 1)) == kept


def test_without_room_none_is_kept() -> None:
    known = Templates(spec(), LIMITS, max_bytes=0)
    for _ in range(2 * SELDOM):
        assert not found(known, some_template(known, 10, 1))


def test_clients_no_two_of_whose_requests_are_alike_make_one_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[bytes] = []
    make = templates._made

    def noted(payload: bytes, *rest: object) -> Template | None:
        made.append(payload)
        return make(payload, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(templates, "_made", noted)
    known, decoded = Templates(spec(), LIMITS), Plans(spec(), LIMITS, 0)
    rounds = 10
    for number in range(rounds * SELDOM):
        asked = pb.ModelInferRequest.FromString(sent())
        asked.parameters[f"p{number:06}"].bool_param = True  # alike in length alone
        payload = asked.SerializeToString()
        known.keep(payload, decoded.decode(pb.ModelInferRequest.FromString(payload), payload))
    assert len(made) == 1 + rounds, "the first, and then one in so many"


# Nothing is answered otherwise than without templates.

BASES = [
    sent(),
    sent(id=""),
    sent(names=("x", "h0", "c0")),
    sent(names=("c0", "x", "h0"), id="é", x=(1, 3, 3)),  # of other lengths, since one of each length is kept
    sent(names=("x", "lengths"), x=(1, 3, 3)),
]


def outcome(known: Plans, payload: bytes) -> str:
    """What comes of a request, as text: its head, and what it holds or what is wrong with it."""
    head = head_of(payload)
    try:
        template = known.templates.find(payload, head.end) if head else None
        if head and template:
            named, decoded = head[:3], template.decode(payload, head.end)
        else:
            message = request.message(payload)
            named = message.model_name, message.model_version, message.id
            decoded = known.decode(message, payload)
    except ServingError as error:
        return f"{type(error).__name__}: {error}"
    inputs = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in decoded.inputs.items()}
    steps = None if decoded.steps is None else np.asarray(decoded.steps).tolist()
    return f"right: {named} {decoded.rows} {steps} {decoded.outputs} {decoded.classes} {decoded.key} {inputs}"


def check(known: Plans, payload: bytes) -> str:
    """What comes of it after others were seen, which must be what comes of it on a server that keeps nothing."""
    got = outcome(known, payload)
    assert got == outcome(Plans(spec(), LIMITS, 0), payload), payload
    return got


def seen(*payloads: bytes) -> Plans:
    known = Plans(spec(), LIMITS)
    for payload in payloads:
        assert template_of(payload, known)
    return known


@pytest.mark.parametrize("base", BASES, ids=range(len(BASES)))
def test_every_byte_changed_and_every_end_cut_off(base: bytes) -> None:
    known, outcomes = seen(base), set[str]()
    for place in range(len(base)):
        for flipped in (0x01, 0x80, 0xFF, base[place]):
            changed = bytearray(base)
            changed[place] ^= flipped
            outcomes.add(check(known, bytes(changed)).partition(":")[0])
        outcomes.add(check(known, base[:place]).partition(":")[0])
    assert len(outcomes) >= 2


def pieces_of(payload: bytes) -> list[bytes]:
    """The fields of a request, each with its tag."""
    pieces, at = [], 0
    while at < len(payload):
        begin = at
        at += 1
        length = shift = 0
        while True:
            length |= (payload[at] & 0x7F) << shift
            shift += 7
            at += 1
            if payload[at - 1] < 0x80:
                break
        at += length
        pieces.append(payload[begin:at])
    return pieces


def _padded(piece: bytes) -> bytes:
    """Its length in a byte more than is needed."""
    length = piece[1:2]
    return piece[:1] + bytes([length[0] | 0x80, 0]) + piece[2:] if length[0] < 0x80 else piece


UNKNOWN = [b"\xa0\x06\x01", b"\xa5\x06\0\0\x80\x3f", b"\xa2\x06\0044444", b"\xa2\x06\x04" + RAW + b"\x18ab"]
Edit = Callable[[list[bytes], random.Random], object]


def _any_of(pieces: list[bytes], drawn: random.Random) -> int:
    return drawn.randrange(len(pieces)) if pieces else 0


EDITS: list[Edit] = [
    lambda pieces, drawn: pieces.insert(_any_of(pieces, drawn), drawn.choice(pieces)) if pieces else None,
    lambda pieces, drawn: drawn.shuffle(pieces),
    lambda pieces, drawn: pieces.insert(drawn.randint(0, len(pieces)), drawn.choice(UNKNOWN)),
    lambda pieces, drawn: pieces.append(drawn.choice(UNKNOWN)),
    lambda pieces, drawn: pieces.__setitem__(slice(None), [_padded(piece) for piece in pieces]),
    lambda pieces, drawn: pieces.pop(_any_of(pieces, drawn)) if pieces else None,
    lambda pieces, drawn: pieces.insert(drawn.randint(0, len(pieces)), field(ID, b"i" * drawn.choice([0, 1, 127, 128]))),
    lambda pieces, drawn: pieces.insert(drawn.randint(0, len(pieces)), field(ID, b"\xff")),
    lambda pieces, drawn: pieces.insert(drawn.randint(0, len(pieces)), field(NAME, drawn.choice([b"", b"m", b"\xc3"]))),
    lambda pieces, drawn: pieces.insert(drawn.randint(0, len(pieces)), field(VERSION, drawn.choice([b"", b"1", b"\xc3"]))),
    lambda pieces, drawn: pieces.append(field(RAW, bytes(drawn.choice([0, 8, 16, 24])))),
    lambda pieces, drawn: pieces.insert(1, field(b"\x32", b"\x0a\x02hn")),
]  # fmt: skip


def test_no_mutation_of_requests_that_were_seen_is_taken_for_one_of_them() -> None:
    drawn, outcomes, by_template = random.Random(1), set[str](), 0
    known = seen(*BASES)
    for number in range(MUTATIONS):
        if number % 500 == 0:
            known = seen(*BASES)
        payload = drawn.choice(BASES)
        if drawn.random() < 0.7:
            pieces = pieces_of(payload)
            for _ in range(drawn.randint(1, 3)):
                drawn.choice(EDITS)(pieces, drawn)
            payload = b"".join(pieces)
        if drawn.random() < 0.4 and payload:
            changed = bytearray(payload)
            changed[drawn.randrange(len(changed))] = drawn.choice([0, 1, 0x7F, 0x80, 0xFF, drawn.randrange(256)])
            payload = bytes(changed)
        head = head_of(payload)
        by_template += bool(head and known.templates.find(payload, head.end))
        outcomes.add(check(known, payload).partition(":")[0])
        outcomes.add(check(known, payload).partition(":")[0])  # which may have made a template
    assert len(outcomes) >= 3, outcomes
    assert by_template > MUTATIONS // 20, "some are still like one that was seen"


# From the bytes to the answer.


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inference]:
    """The models `fake` and `other`, each asked until it has a template."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("fake", "other"):
        fake_models.write(root, name)
    manager = managing(root)
    let_in(manager, dataclasses.replace(request_of(root, "other"), defaults=ServerDefaults(backend="fake")))
    serving = Inference(manager, Recorder(0.0, REFUSALS), max_steps=50)
    for name in ("fake", "other"):
        for _ in range(3):
            assert told(serving, named(name)) == f"{name}/1 7"
    yield serving
    assert manager.close(10)


def named(name: str, rest: bytes = b"") -> bytes:
    """A request that begins with this model's name, then with what is given."""
    return field(NAME, name.encode()) + (rest or ID + b"\0017") + sent(id="")[len(NAME + b"\1m") :]


def told(inference: Inference, payload: bytes) -> str:
    """The model, its version and the id in the answer; or the code."""
    call = KeptCall()
    inference.infer_all([(payload, call)])
    answer = call.told.get(timeout=20)
    if not isinstance(answer, bytes):
        return answer[0].name
    message = pb.ModelInferResponse.FromString(answer)
    return f"{message.model_name}/{message.model_version} {message.id}"


@pytest.mark.parametrize(
    ("payload", "answered"),
    [
        (named("fake"), "fake/1 7"),
        (named("other", VERSION + b"\0011"), "other/1 "),
        (named("fake", VERSION + b"\0"), "fake/1 "),
        (named("fake", VERSION + b"\0012"), "NOT_FOUND"),
        (named("nobody"), "INVALID_ARGUMENT"),
        # The last one counts, in whatever order they come.
        (named("fake", field(NAME, b"other")), "other/1 "),
        (named("fake") + field(NAME, b"other"), "other/1 7"),
        (named("nobody") + field(NAME, b"other"), "other/1 7"),
        (named("fake") + field(NAME, b"nobody"), "INVALID_ARGUMENT"),
        (named("fake") + VERSION + b"\0012", "NOT_FOUND"),
        (named("fake", VERSION + b"\0012") + VERSION + b"\0011", "fake/1 "),
        (named("fake", ID + b"\0017" + ID + b"\0018"), "fake/1 8"),
        (named("fake") + ID + b"\0019", "fake/1 9"),
        (named("fake", ID + b"\0017" + VERSION + b"\0011"), "fake/1 7"),
        # What is no text is no request.
        (named("fake", ID + b"\1\xff"), "INVALID_ARGUMENT"),
        (b"\x0a\1\xff" + sent()[3:], "INVALID_ARGUMENT"),
        (named("fake")[:-1], "INVALID_ARGUMENT"),
        (named("fake", ID + b"\x7f" + b"i" * 127), "fake/1 " + "i" * 127),
        (named("fake", ID + b"\x80\1" + b"i" * 128), "fake/1 " + "i" * 128),
    ],
)
def test_whichever_model_and_id_protobuf_reads_are_the_ones_of_the_answer(
    payload: bytes, answered: str, inference: Inference
) -> None:
    for _ in range(2):
        assert told(inference, payload) == answered
