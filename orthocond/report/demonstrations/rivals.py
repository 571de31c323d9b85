"""The comparison with rivals that ``benchmarks/rivals.py`` measured, as tables and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

COMMAND = "make rivals"
OURS = "orthocond"
ENOUGH = 1e-4  # largest error of a rival that counts as accurate where times are compared
LIKE_OURS = 2.0  # a factor within which two errors or times count as equal


class Rivals(NamedTuple):
    """Errors and times, with the versions and the machine of each."""

    errors: pd.DataFrame  # task, size, case, method, outcome, value, gradient, distance, loss
    times: pd.DataFrame  # task, size, count, method, outcome, seconds, forward, peak_mb, ...
    errors_note: str
    times_note: str
    versions: dict[str, str | None]


def _frame(cases: dict[str, Any], third: str) -> pd.DataFrame:
    rows = []
    for name, table in cases.items():
        task, size, *rest = name.split(", ")
        place = {"task": task, "size": int(size), third: ", ".join(rest)}
        rows += [place | {"method": method} | row for method, row in table.items()]
    return pd.DataFrame(rows)


def _note(content: dict[str, Any]) -> str:
    """Return the machine and the version of torch in one line."""
    device = content["processor"] if content["device"] == "cpu" else content["device"]
    threads = content["threads"]
    return f"torch {content['torch']}, {device}, {threads} thread{'s' * (threads != 1)}"


def load(folder: Path) -> Rivals | None:
    """Return the measurements in a folder, None before ``make rivals`` has written both files."""
    paths = [folder / "rivals.json", folder / "rivals-times.json"]
    if not all(path.exists() for path in paths):
        return None
    errors, times = (json.loads(path.read_text()) for path in paths)
    frames = _frame(errors["cases"], "case"), _frame(times["cases"], "count")
    return Rivals(*frames, _note(errors), _note(times), errors["versions"])


def of_case(frame: pd.DataFrame, task: str, size: int, **where: str) -> pd.DataFrame:
    """Return the rows of one case, by method."""
    rows = frame[(frame["task"] == task) & (frame["size"] == size)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.set_index("method")


def accuracy(errors: pd.DataFrame, task: str, size: int, part: str) -> pd.DataFrame:
    """Return the errors of a task, one row per method and one column per case.

    A cell is a number with two digits, or what the method raised in its place.
    """
    rows = errors[(errors["task"] == task) & (errors["size"] == size)]
    cells = rows.assign(cell=[_cell(row, part) for _, row in rows.iterrows()])
    table = cells.pivot_table(
        index="method", columns="case", values="cell", aggfunc="first", sort=False
    )
    return table.reset_index().rename_axis(columns=None)


def even_powers(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of ``accuracy`` without odd powers of ten, to fit the width of a page."""
    odd = [f"1e+{power:02}" for power in range(1, 12, 2)]
    return table.drop(columns=odd, errors="ignore")


def by_dimension(errors: pd.DataFrame, case: str = "1e+04") -> pd.DataFrame:
    """Return the errors of the gradient of both roots at one condition number, per dimension."""
    rows = errors[(errors["case"] == case) & errors["task"].isin(["whitening", "pooling"])]
    rows = rows.sort_values("size", kind="stable")
    cells = rows.assign(cell=[_cell(row, "gradient") for _, row in rows.iterrows()])
    cells = cells.assign(dimension="d = " + rows["size"].astype(str))
    table = cells.pivot_table(
        index=["task", "method"], columns="dimension", values="cell", aggfunc="first", sort=False
    )
    return table.reset_index().rename_axis(columns=None)


def _cell(row: Any, part: str) -> str:
    if pd.notna(row[part]):
        return f"{row[part]:.1e}"
    outcome = str(row["outcome"])
    return {
        "value not finite": "NaN",
        "gradient not finite": "NaN",
        "weight not finite": "NaN",
        "not installed": "not installed",
    }.get(outcome, f"raises {outcome.partition(':')[0]}")


def speed(times: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the times of a task over ours, and our milliseconds and megabytes, per case."""
    rows = times[times["task"] == task]
    cases = list(dict.fromkeys(zip(rows["size"], rows["count"], strict=True)))
    columns = {}
    for size, count in cases:
        own = of_case(rows, task, size, count=count)
        name = f"{size} x {count}" if count else str(size)
        columns[name] = own["seconds"] / own["seconds"].iloc[0]
    table = pd.DataFrame(columns).round(2)
    first = pd.DataFrame(
        {
            f"{size} x {count}" if count else str(size): own["seconds"].iloc[:1] * 1e3
            for size, count in cases
            for own in [of_case(rows, task, size, count=count)]
        }
    ).round(2)
    first.index = pd.Index([f"{first.index[0]}, milliseconds"])
    return pd.concat([first, table]).rename_axis("method").reset_index()


def memory(times: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the peak memory of the tensors of each method in MB, one column per case."""
    rows = times[times["task"] == task]
    case = [f"{s} x {c}" if c else str(s) for s, c in zip(rows["size"], rows["count"], strict=True)]
    table = rows.assign(case=case).pivot_table(
        index="method", columns="case", values="peak_mb", sort=False
    )
    return table.round(2).reset_index().rename_axis(columns=None)


WIDE = ", float64"  # ends the name of a method whose user converted the features first


def nearest(errors: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return our error in each case beside that of the most accurate rival.

    Returns:
        Columns task, d, case, ours, rival, error (for the features as they are, float32), and
        rival64, error64 (for features that their user converted to float64 first). Errors are NaN
        where no method has a finite result.
    """
    tasks = ["whitening", "pooling", "polar"]
    rows = errors[errors["task"].isin(tasks)]
    found = []
    for (task, size, case), table in rows.groupby(["task", "size", "case"], sort=False):
        values = table.set_index("method")[part]
        row = {"task": task, "d": size, "case": case, "ours": values[OURS]}
        others = values[[name for name in values.index if not name.startswith(OURS)]].dropna()
        wide = others.index.str.endswith(WIDE)
        for suffix, own in (("", others[~wide]), ("64", others[wide])):
            has = len(own) > 0
            row[f"rival{suffix}"] = own.idxmin() if has else ""
            row[f"error{suffix}"] = own.min() if has else float("nan")
        found.append(row)
    return pd.DataFrame(found).dropna(subset=["ours"])


def standing(errors: pd.DataFrame, task: str, part: str, wide: bool = False) -> dict[str, object]:
    """Return in how many cases we are more accurate than every rival, and where we are not.

    Args:
        errors: as measured.
        task, part: what is compared.
        wide: True to compare with the rivals whose user converted the features to float64.

    Returns:
        The number of cases; in how many of them our error is smaller, equal within ``LIKE_OURS``,
        and larger than that of the best rival; the median factor between the errors in the first
        and in the last of these; and the largest factor of the last, with its rival and case.
    """
    suffix = "64" if wide else ""
    table = nearest(errors, part).query("task == @task")
    factor = table[f"error{suffix}"] / table["ours"]
    better = factor.isna() | (factor > LIKE_OURS)  # NaN: no rival has a finite result
    worse = (1 / factor[factor < 1 / LIKE_OURS]).sort_values()
    largest = ""
    if len(worse):
        case = table.loc[worse.index[-1]]
        largest = f"{worse.iloc[-1]:.2g}: {case[f'rival{suffix}']}, d = {case['d']}, {case['case']}"
    return {
        "cases": len(table),
        "more accurate": int(better.sum()),
        "factor if more (median)": factor[better].median(),
        "equal": len(table) - int(better.sum()) - len(worse),
        "less accurate": len(worse),
        "factor if less (median)": worse.median(),
        "largest factor": largest,
    }


def on_float64(errors: pd.DataFrame, task: str, part: str) -> float:
    """Return our largest error over that of the best rival, all on features in float64."""
    best = nearest(errors, part).query("task == @task").set_index(["d", "case"])["error64"]
    own = errors[(errors["task"] == task) & (errors["method"] == OURS + WIDE)]
    return float((own.set_index(["size", "case"])[part].to_numpy() / best.to_numpy()).max())


def faster(rivals: Rivals) -> pd.DataFrame:
    """Return, for each timed case, the fastest rival at all and the fastest accurate one.

    A rival is accurate if its errors for the condition number 1e4 (for the polar factor 1e2) at
    d = 64 are below ``ENOUGH``. A factor is our time divided by the time of the rival: above 1 the
    rival is faster.
    """
    found = []
    for (task, size, count), rows in rivals.times.groupby(["task", "size", "count"], sort=False):
        if task in ("linear", "convolution"):
            continue
        case = "1e+02" if task == "polar" else "1e+04"
        wrong = of_case(rivals.errors, str(task), 64, case=case)
        parts = wrong[["value"] if task == "polar" else ["value", "gradient"]]
        accurate = set(parts.index[(parts < ENOUGH).all(axis=1)])
        seconds = rows.set_index("method")["seconds"].dropna()
        others = seconds[[name for name in seconds.index if not name.startswith(OURS)]]
        exact = others[[name for name in others.index if name in accurate]]
        row = {"task": task, "d": size, "samples": count, "ours, ms": 1e3 * seconds[OURS]}
        for title, chosen in (("fastest", others), ("fastest accurate", exact)):
            row[title] = chosen.idxmin() if len(chosen) else ""
            row[f"{title}, factor"] = seconds[OURS] / chosen.min()  # NaN without one
        found.append(row)
    table = pd.DataFrame(found)
    return table.round({c: 2 for c in table.columns if c.endswith(("factor", "ms"))})


class Row(NamedTuple):
    """Where the numbers of a row of the README are."""

    rival: str
    method: str
    what: str
    task: str
    case: str
    part: str
    samples: str
    ours: str = OURS


README = (
    Row("kornia", "kornia", "whitening", "whitening", "1e+04", "gradient", "8"),
    Row("IterNorm", "IterNorm, T = 5", "whitening", "whitening", "1e+04", "gradient", "8"),
    Row("iSQRT-COV", "iSQRT-COV, N = 5", "covariance root", "pooling", "1e+04", "gradient", "16"),
    Row(
        *("geotorch", "geotorch, expm", "orthogonal weight", "linear", "float32", "distance", ""),
        ours="orthocond, ow-stiefel",
    ),
    Row("Muon", "torch.optim.Muon", "polar factor", "polar", "1e+02", "value", "128"),
)
"""At d = 64. ``kornia`` and ``geotorch`` are the packages with their defaults."""


def readme(rivals: Rivals) -> str:
    """Return the README's table of five rivals in Markdown."""
    lines = [
        "| rival | task | our error | its error | its time / our time | its memory / our memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in README:
        wrong = of_case(rivals.errors, row.task, 64, case=row.case).to_dict("index")
        cost = of_case(rivals.times, row.task, 64, count=row.samples).to_dict("index")
        if row.method not in wrong or row.method not in cost:
            continue
        ours, theirs = (_cell(wrong[name], row.part) for name in (row.ours, row.method))
        slower, larger = (
            cost[row.method][unit] / cost[row.ours][unit] for unit in ("seconds", "peak_mb")
        )
        name = f"{row.rival} {rivals.versions.get(row.rival) or ''}".strip()
        lines.append(f"| {name} | {row.what} | {ours} | {theirs} | {slower:.2f} | {larger:.2f} |")
    return "\n".join([*lines, "", f"Errors: {rivals.errors_note}. Times: {rivals.times_note}.", ""])
