"""What the pages of the reference say is what a running server does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from reference_pages import metrics
from serving.edge.families import FAMILIES
from serving.launch import LaunchedServer
from tests.support import fake_models, summing
from tests.support.commands import ROOT
from tests.support.wire import RawClient


def test_a_scrape_has_no_metric_without_an_entry_and_no_label_that_is_not_said(tmp_path: Path) -> None:
    """The server measures, shadows and has a version that is broken, so that nearly every metric is there."""
    summing.write(fake_models.write(tmp_path))
    (tmp_path / "fake" / "config.pbtxt").write_text(
        fake_models.parameters({"shadow": "onnxruntime", "shadow_share": "1"})
    )
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with LaunchedServer(tmp_path, "--backend", "auto") as server, RawClient(server.address) as client:
        client.infer()
        text = server.metrics()
    labels = {name: set(family.labels) for family in FAMILIES for name in metrics.names(family)}
    labels |= {name: set(filter(None, said.split(", "))) for name, _, said, *_ in metrics.PROCESS}
    shown = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(set(sample.labels) - {"le"})
    assert shown == {name: said for name, said in labels.items() if name in shown}
    assert len(shown) > len(metrics.PROCESS) + 15, json.dumps(sorted(shown))
    entries = set(re.findall(r"^### (\w+)$", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} <= entries
