"""Certificate and key as files that are renewed as operators renew them: each put in place as a whole."""

from __future__ import annotations

from pathlib import Path

import trustme

from serving.edge.tls import Certificates


def put(folder: Path, authority: trustme.CA) -> None:
    """A new certificate and its key, each put in place as a whole."""
    issued = authority.issue_cert("localhost")
    for name, content in (("key.pem", issued.private_key_pem), ("cert.pem", issued.cert_chain_pems[0])):
        replace(folder / name, content.bytes())


def replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"new-{path.name}")
    new.write_bytes(content)
    new.replace(path)


def certificates(folder: Path, client_ca: Path | None = None) -> Certificates:
    return Certificates(folder / "cert.pem", folder / "key.pem", client_ca)
