"""Run in the client's own environment: python triton_queue.py ADDRESS METRICS.

Asks the model `slow`, which computes one row after the other, with the priorities and time-outs of `tritonclient`, and prints how
each request has ended, in that order. The server's metrics tell when it has a request.
"""

import queue
import sys
import urllib.request

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

client = grpcclient.InferenceServerClient(sys.argv[1])
ended: "queue.Queue[str]" = queue.Queue()
x = grpcclient.InferInput("x", [1, 2, 3], "FP32")
x.set_data_from_numpy(np.ones((1, 2, 3), np.float32))


def come() -> float:
    """How many requests the server has seen."""
    with urllib.request.urlopen(sys.argv[2]) as page:  # noqa: S310 - the address that the test has given
        lines = page.read().decode().splitlines()
    counts = ("lstm_serving_requests_in_flight{", "lstm_serving_requests_total{")
    return sum(float(line.split()[-1]) for line in lines if line.startswith(counts))


def ask(name: str, **wishes: int) -> None:
    def tell(result: object, error: "InferenceServerException | None") -> None:
        ended.put(f"{name}: {error.status()} {error.message()[:23]}" if error else name)

    before = come()
    client.async_infer("slow", [x], tell, **wishes)
    while come() == before:
        pass


ask("first")
ask("low", priority=2)
ask("impatient", timeout=1000)
ask("of no level", priority=9)
ask("high", priority=1)
for _ in range(5):
    print(ended.get(timeout=60))
client.close()
