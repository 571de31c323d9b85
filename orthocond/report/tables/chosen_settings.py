"""Settings that the paper leaves open, chosen on images held out from the training set."""

from __future__ import annotations

import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.commands import MissingRuns
from orthocond.report.provenance import Numbers, Provenance
from orthocond.report.studies.selection import shared_settings
from orthocond.report.study import Study
from orthocond.report.style import label

NOTE = (
    "Error in percent on the {part:.0%} of the training images of {data} that were held out: mean "
    "and sample standard deviation over seeds. {epochs} epochs. The test images were not read. "
    "Chosen is the smallest mean"
)


def varied(runs: list[Run]) -> str | None:
    """Return the only setting in which runs differ; None where they differ in none or several."""
    settings = [shared_settings(run) for run in runs]
    keys = [key for key in settings[0] if any(s[key] != settings[0][key] for s in settings)]
    return keys[0] if len(keys) == 1 else None


def _compared(runs: list[Run], setting: str) -> pd.DataFrame:
    """Return the errors of runs, one row per value of a setting."""
    errors = pd.DataFrame(
        {
            "value": [run.config[setting] for run in runs],
            "error": [run.summary["error"] for run in runs],
            "recalibrated error": [run.summary["recalibrated_error"] for run in runs],
        }
    ).dropna(axis="columns")  # pooling has nothing to recalibrate
    values = errors.groupby("value")
    means = values.mean().add_suffix(" mean")
    spread = values["error"].std().rename("error std")
    frame = pd.concat([means, spread, values.size().rename("n")], axis=1).reset_index()
    frame["chosen"] = frame.index == frame["error mean"].idxmin()
    return frame


def build(study: Study, task: str) -> Numbers:
    """Return each setting that was varied for a method, one row per value.

    Args:
        study: a folder whose studies differ in one setting for each method: ``runs/settings``.
        task: ``dbn``, where errors are measured with the moving averages, or ``gcp``.

    Returns:
        Columns method, setting, value, error mean, recalibrated error mean (``dbn``), error std, n,
        chosen.

    Raises:
        MissingRuns: no method has runs that differ in one setting.
    """
    ended = [
        run
        for run in study.runs
        if run.config["task"] == task and run.summary["status"] == "complete"
    ]
    parts = []
    for method in dict.fromkeys(run.config["method"] for run in ended):
        own = [run for run in ended if run.config["method"] == method]
        setting = varied(own)
        if setting is None:
            continue
        frame = _compared(own, setting)
        frame.insert(0, "method", label(method))
        frame.insert(1, "setting", setting)
        parts.append(frame)
    if not parts:
        raise MissingRuns(f"no runs in {str(study.folder)!r} that differ in one setting")
    config = ended[0].config
    frame = pd.concat(parts, ignore_index=True)
    note = NOTE.format(
        part=config["data"]["holdout"], data=config["data"]["name"], epochs=config["epochs"]
    )
    return Numbers(frame, Provenance(note))
