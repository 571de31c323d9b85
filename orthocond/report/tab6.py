"""Table 6: milliseconds of a training step, the paper's beside ours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orthocond.paper import TABLES
from orthocond.report.study import MissingRuns, Study
from orthocond.report.tables import NOT_RUN, assemble
from orthocond.timings import Timing

PHASES = {"FP (ms)": "forward", "BP (ms)": "backward"}
SHARED = ("task", "model", "image_size", "batch_size", "precision")
COMMAND = "orthocond measure --timing --model resnet50"
REMARK = (
    "Median [quartiles] in milliseconds over interleaved rounds; ratio: the median of each round's "
    "ratio to the network without a spectral layer; BP includes the optimizer's step"
)


def _group(timing: Timing) -> tuple[str, ...]:
    """What must be equal for times to be compared; the device comes last."""
    device = timing.environment.get("device_name") or timing.environment.get("device")
    return (*(str(timing.data[key]) for key in SHARED), str(device))


def _row(timing: Timing) -> dict[str, float]:
    row: dict[str, float] = {}
    for heading, phase in PHASES.items():
        spread = timing.data[f"{phase}_ms"]
        row |= {f"{heading} {name}": spread[name] for name in ("median", "q1", "q3")}
        row[f"{heading[:2]} ratio"] = timing.data["ratio"][phase]
    return row | {"rounds": timing.data["rounds"]}


def build(study: Study) -> pd.DataFrame:
    """The paper's milliseconds beside those of each timing study.

    Raises:
        MissingRuns: there is none; the message is the command that makes one.
    """
    if not study.timings:
        raise MissingRuns(f"no timings in {str(study.folder)!r}: {COMMAND} --out {study.folder}")
    groups: dict[tuple[str, ...], list[Timing]] = {}
    for timing in study.timings:
        groups.setdefault(_group(timing), []).append(timing)
    paper, timed = list(TABLES[6].rows), [t.data["method"] for t in study.timings]
    methods = paper + sorted(set(timed).difference(paper))
    ours, cells, remarks = {}, {}, []
    for key, timings in groups.items():
        task, model, size, batch, precision, device = key
        group = f"here: {task} {model}, {device}"
        if group in ours:
            group = f"{group}, {batch} x {size} px, {precision}"
        rows = {timing.data["method"]: _row(timing) for timing in timings}
        ours[group] = pd.DataFrame.from_dict(rows, orient="index")
        cells[group] = {m: NOT_RUN for m in methods if m not in rows}
        threads = timings[0].environment.get("threads", np.nan)
        remarks.append(f"{group}: batch {batch}, {size} pixels, {precision}, {threads} CPU threads")
    frame = assemble(6, methods, ours, cells, [], REMARK)
    frame.attrs["remarks"] += remarks
    frame.attrs["labels"]["bn"] = f"no spectral layer ({TABLES[6].labels['bn']})"
    frame.attrs["runs"] = [
        {"run": t.name, "commit": t.environment.get("commit"), "config": None}
        for t in study.timings
    ]
    return frame
