"""Table 6: milliseconds of a training step, the paper's beside those of a timing study."""

from __future__ import annotations

import shlex
from collections import Counter

import numpy as np
import pandas as pd

from orthocond.artifacts.timing_artifacts import Timing
from orthocond.report.commands import MissingRuns
from orthocond.report.paper import PAPER_TABLES
from orthocond.report.provenance import Provenance, Source
from orthocond.report.study import Study
from orthocond.report.tables.comparison import NOT_RUN, assemble
from orthocond.report.tables.table import Table

PHASES = {"forward": "FP", "backward": "BP", "step": "FP + BP"}
"""Labels in the paper's table, by measured phase; ``step`` is the sum of both."""

SHARED = ("task", "model", "image_size", "batch_size", "precision")
COMMAND = "orthocond measure time --model resnet50 --batch-size 32 --set data.classes=100"
HOW = (
    "Median [quartiles] in milliseconds over interleaved rounds; ratio: the median of each round's "
    "ratio to the network without a spectral layer (BN or GAP); BP includes the optimizer's step"
)


def _group(timing: Timing) -> tuple[str, ...]:
    """Return the settings that timings must share to be compared; the device is the last."""
    device = timing.environment.get("device_name") or timing.environment.get("device")
    return (*(str(timing.data[key]) for key in SHARED), str(device))


def _row(timing: Timing) -> dict[str, float]:
    row: dict[str, float] = {}
    for phase in ("forward", "backward"):
        heading = f"{PHASES[phase]} (ms)"
        spread = timing.data[f"{phase}_ms"]
        row |= {f"{heading} {name}": spread[name] for name in ("median", "q1", "q3")}
        row[f"{PHASES[phase]} ratio"] = timing.data["ratio"][phase]
    return row


def build(study: Study) -> Table:
    """Return the paper's milliseconds beside those of each timing study.

    Raises:
        MissingRuns: there are no timings; the message has the command that makes them.
    """
    if not study.timings:
        command = f"{COMMAND} --out {shlex.quote(str(study.folder / 'timing'))}"
        raise MissingRuns(f"no timings in {str(study.folder)!r}", command)
    groups: dict[tuple[str, ...], list[Timing]] = {}
    for timing in study.timings:
        groups.setdefault(_group(timing), []).append(timing)
    paper, timed = list(PAPER_TABLES[6].rows), [t.data["method"] for t in study.timings]
    methods = paper + sorted(set(timed).difference(paper))
    ours: dict[str, pd.DataFrame] = {}
    cells: dict[str, dict[str, str]] = {}
    remarks: list[str] = []
    alike = Counter((task, model, device) for task, model, *_, device in groups)
    for key, timings in groups.items():
        task, model, size, batch, precision, device = key
        group = f"here: {task} {model}, {device}"
        if alike[task, model, device] > 1:
            group = f"{group}, {batch} x {size} px, {precision}"
        rows = {timing.data["method"]: _row(timing) for timing in timings}
        ours[group] = pd.DataFrame.from_dict(rows, orient="index")
        cells[group] = {m: NOT_RUN for m in methods if m not in rows}
        threads = timings[0].environment.get("threads", np.nan)
        rounds = " or ".join(map(str, sorted({timing.data["rounds"] for timing in timings})))
        remarks.append(
            f"{group}: batch {batch}, {size} pixels, {precision}, {threads} CPU threads, "
            f"{rounds} rounds"
        )
    sources = tuple(Source(t.name, t.environment.get("commit"), None) for t in study.timings)
    provenance = Provenance(HOW, tuple(remarks), runs=sources)
    return assemble(6, methods, ours, cells, provenance)
