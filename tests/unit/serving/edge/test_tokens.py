"""Who may call, and which files of tokens are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.edge.tokens import HEALTH_METHODS, Metadata, Tokens
from serving.errors import StartupError

TOKEN, OLDER_TOKEN = "0123456789abcdef", "fedcba9876543210"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def tokens(folder: Path, content: bytes = f"{TOKEN}\n{OLDER_TOKEN}\n".encode(), *, open_health: bool = False) -> Tokens:
    file = folder / "tokens"
    file.write_bytes(content)
    return Tokens(file, open_health=open_health)


@pytest.mark.parametrize(
    ("metadata", "lets_in"),
    [
        ([("authorization", f"Bearer {TOKEN}")], True),
        ([("authorization", f"Bearer {OLDER_TOKEN}")], True),
        ([("authorization", f"bearer {TOKEN}")], True),
        ([("authorization", f"BEARER  {TOKEN} ")], True),
        ([("authorization", f"Bearer {TOKEN}".encode())], True),
        ([("other", "1"), ("authorization", "Bearer no"), ("authorization", f"Bearer {TOKEN}")], True),
        (None, False),
        ([], False),
        ([("authorization", "")], False),
        ([("authorization", TOKEN)], False),
        ([("authorization", "Bearer")], False),
        ([("authorization", "Bearer ")], False),
        ([("authorization", f"Basic {TOKEN}")], False),
        ([("authorization", f"Bearer {TOKEN}x")], False),
        ([("authorization", f"Bearer {TOKEN[:-1]}")], False),
        ([("authorization", f"Bearer {TOKEN} {OLDER_TOKEN}")], False),
        ([("authorization", f"Bearer {TOKEN.upper()}")], False),
        ([("authorization", "Bearer \u00e9\u20ac")], False),
        ([("authorization", b"Bearer \xff")], False),
        ([("token", f"Bearer {TOKEN}")], False),
    ],
)
def test_who_may_call(tmp_path: Path, metadata: Metadata, lets_in: bool) -> None:
    refusal = tokens(tmp_path).refusal(INFER, metadata)
    assert (refusal is None) == lets_in
    if refusal is not None:
        assert "send the metadata 'authorization' with the value 'Bearer TOKEN'" in str(refusal)
        assert TOKEN not in str(refusal)


@pytest.mark.parametrize("method", [*sorted(HEALTH_METHODS), INFER, "/no.such/Method"])
@pytest.mark.parametrize("open_health", [True, False])
def test_health_alone_may_be_asked_without_a_token_where_that_is_allowed(
    tmp_path: Path, method: str, open_health: bool
) -> None:
    refusal = tokens(tmp_path, open_health=open_health).refusal(method, [])
    assert (refusal is None) == (open_health and method in HEALTH_METHODS)


@pytest.mark.parametrize("content", [b"a", b"a\n", b"\n  a  \r\n\n"])
def test_one_token_a_line_blanks_around_it_and_empty_lines_are_left_out(tmp_path: Path, content: bytes) -> None:
    assert tokens(tmp_path, content).known([("authorization", "Bearer a")])
    assert not tokens(tmp_path, content).known([("authorization", "Bearer ")])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold at least one token, one a line"),
        (b"\n \n", "must hold at least one token, one a line"),
        (b"two words\n", "without spaces within"),
        (b"good\ntwo\twords\n", "without spaces within"),
        (b"a\x00b\n", "try: openssl rand -hex 32"),
        (b"caf\xc3\xa9\n", "cannot be read: 'ascii' codec"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(StartupError, match=rf"tokens \(--auth-token-file\) .*{said}"):
        tokens(tmp_path, content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nowhere \(--auth-token-file\) cannot be read: .*No such file"):
        Tokens(tmp_path / "nowhere", open_health=False)
