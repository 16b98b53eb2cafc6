"""The chart of the page: server CPU a request with 64 in flight, by both clients.

It stands on a ground of its own, so that it can be read whatever lies around it, and follows the reader's light or dark.
"""

from __future__ import annotations

from html import escape

from benchmarks.peers.load import CLOSED, IN_FLIGHT, MANY, PERF, Load
from benchmarks.peers.measured import Measured
from benchmarks.peers.server import FLOOR, MLSERVER, OURS, TRITON

WIDTH, LEFT, TOP, LINE, BAR, GAP = 830, 220, 92, 52, 17, 2
SCALE_WIDTH = WIDTH - LEFT - 80
NAMES = {OURS: "lstm-serve", TRITON: "Triton", MLSERVER: "MLServer", FLOOR: "gRPC alone"}
SAID = {FLOOR: "C++, answers a constant"}
STYLE = """\
  text { font: 14px system-ui, "Segoe UI", "Liberation Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 13px; fill: #59636e }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .other { fill: #9aa7b4 }
  .first { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9ea7b1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .other { fill: #656c76 }
    .first { fill: #4493f8 }
  }"""


def drawn(measured: Measured[Load]) -> str:
    """The chart as SVG: for each server one bar for each client that measured it."""
    values = {
        name: {
            client: measured.median(name, Load(client, IN_FLIGHT, MANY), lambda run: run.cpu_us)
            for client in (PERF, CLOSED)
        }
        for name in NAMES
    }
    most = max((value for by_client in values.values() for value in by_client.values() if value), default=1.0)
    height = TOP + LINE * len(values) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>Server CPU a request with {MANY} in flight</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="20" y="32">Server CPU a request, {MANY} in flight, us</text>',
        '<rect class="first" x="20" y="50" width="14" height="14"/><text x="42" y="62">asked by perf_analyzer</text>',
        '<rect class="other" x="240" y="50" width="14" height="14"/><text x="262" y="62">by a closed loop of one thread</text>',
    ]
    for number, (name, by_client) in enumerate(values.items()):
        y = TOP + LINE * number
        parts.append(f'<text x="20" y="{y + 14}">{escape(NAMES[name])}</text>')
        if name in SAID:
            parts.append(f'<text class="small" x="20" y="{y + 32}">{SAID[name]}</text>')
        parts += _bar("first", y, by_client[PERF], most)
        parts += _bar("other", y + BAR + GAP, by_client[CLOSED], most)
    told = f"one ONNX file, one thread of ONNX Runtime in each server; medians of {measured.rounds} rounds"
    return "\n".join([*parts, f'<text class="small" x="20" y="{height - 18}">{told}</text>', "</svg>", ""])


def _bar(kind: str, y: int, value: float | None, most: float) -> list[str]:
    if value is None:
        return [f'<text class="small" x="{LEFT}" y="{y + 13}">not measured</text>']
    width = round(SCALE_WIDTH * value / most, 1)
    return [
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
        f'<text x="{LEFT + width + 8}" y="{y + 13}">{value:.0f}</text>',
    ]
