"""TLS handshakes, step by step on threads of their own: one step takes a millisecond, and the client may take its time."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serving.edge.links import Encryption, Link

THREADS = 2
FIRST_BYTE = 0x16  # of every TLS connection

DONE, FAILED = 0, -1


class Handshakes:
    """Makes connections encrypted. `stepped` is posted to the loop after each step, with what the next one waits for.

    That is a mask of epoll, `DONE` or `FAILED`. Nobody else touches the connection while it is `handshaking`.
    """

    def __init__(
        self, encryption: Encryption, post: Callable[..., None], stepped: Callable[[tuple[Link, int]], None]
    ) -> None:
        self._encryption = encryption
        self._post = post
        self._stepped = stepped
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="handshake")

    def step(self, link: Link) -> None:
        """Begins a handshake, or goes on with it."""
        link.handshaking = True
        self._threads.submit(self._step, link)

    def close(self) -> None:
        """What has not begun does not; the steps that have end, which takes them a millisecond."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _step(self, link: Link) -> None:
        awaited = FAILED  # no TLS, no certificate that we know, or gone
        try:
            if not isinstance(link.sock, ssl.SSLSocket):
                context = self._encryption.context()
                link.sock = context.wrap_socket(link.sock, server_side=True, do_handshake_on_connect=False)
            link.sock.do_handshake()
            link.caller = holder_of(link.sock.getpeercert(), link.sock.getpeercert(binary_form=True))
            awaited = DONE
        except ssl.SSLWantReadError:
            awaited = select.EPOLLIN
        except ssl.SSLWantWriteError:
            awaited = select.EPOLLOUT
        except (OSError, ValueError) as error:
            link.trouble = getattr(error, "reason", None) or str(error)
            awaited = FAILED
        self._post(self._stepped, (link, awaited))


def holder_of(certificate: Mapping[str, Any] | None, whole: bytes | None) -> str:
    """Who a client is by its certificate, as `ssl.SSLSocket.getpeercert` has it; empty where it has shown none.

    That is its subject and its other names, under its issuer; where it has neither, the certificate itself.
    """
    if not whole:
        return ""
    said = certificate or {}
    subject, issuer = (
        ",".join(f"{kind}={value!r}" for parts in said.get(side, ()) for kind, value in parts)
        for side in ("subject", "issuer")
    )
    names = ",".join(f"{kind}:{value!r}" for kind, value in said.get("subjectAltName", ()))
    if not subject and not names:
        return f"certificate:{hashlib.sha256(whole).hexdigest()}"
    return f"certificate:{subject};{names};{issuer}"


def begins(link: Link) -> bool | None:
    """Whether a client that has sent something begins a handshake; None when it has gone. Takes nothing of what it has sent."""
    try:
        first = link.sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True  # nothing is there after all
    except OSError:
        return None
    return first[0] == FIRST_BYTE if first else None
