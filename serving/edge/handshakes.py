"""TLS handshakes, step by step on threads of their own: one step takes a millisecond, and the client may take its time."""

from __future__ import annotations

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
            link.caller = subject_of(link.sock.getpeercert())
            awaited = DONE
        except ssl.SSLWantReadError:
            awaited = select.EPOLLIN
        except ssl.SSLWantWriteError:
            awaited = select.EPOLLOUT
        except (OSError, ValueError) as error:
            link.trouble = getattr(error, "reason", None) or str(error)
            awaited = FAILED
        self._post(self._stepped, (link, awaited))


def subject_of(certificate: Mapping[str, Any] | None) -> str:
    """Who a client is by its certificate, as `ssl.SSLSocket.getpeercert` has it; empty where it has shown none."""
    names = (certificate or {}).get("subject", ())
    told = ",".join(f"{kind}={value!r}" for parts in names for kind, value in parts)
    return f"certificate:{told}" if told else ""


def begins(link: Link) -> bool | None:
    """Whether a client that has sent something begins a handshake; None when it has gone. Takes nothing of what it has sent."""
    try:
        first = link.sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True  # nothing is there after all
    except OSError:
        return None
    return first[0] == FIRST_BYTE if first else None
