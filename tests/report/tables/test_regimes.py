from __future__ import annotations

from pathlib import Path

import pytest
from study_factory import write_study

from orthocond.report.commands import MissingRuns
from orthocond.report.regimes import regimes
from orthocond.report.study import Study
from orthocond.report.tables.comparison import only
from orthocond.report.tables.regimes import build
from orthocond.report.tables.render import render


def test_the_table_has_a_row_for_each_study_and_task(tmp_path: Path) -> None:
    write_study(tmp_path / "all", ("svd", "svd+nog"))
    write_study(tmp_path / "few", ("svd",), seeds=3, epochs=45, data={"train_images": 4992})
    write_study(tmp_path / "pool", ("gap",), "gcp", data="tiny-imagenet-100")
    study = Study(tmp_path)
    table = build(study)
    frame = table.frame[""]
    assert [row.partition(",")[0] for row in frame.index] == ["all", "few", "pool"]
    assert frame["gap"].iloc[1] == pytest.approx(regimes(study, "dbn")["few"].gap)
    assert list(frame["n"]) == [2, 3, 2] and frame["images"].iloc[1] == 4992
    assert len(table.provenance.runs) == 7
    assert table.provenance.remarks[0].startswith("pool, GCP: the accuracies are those of")
    text = render(table)
    assert "| all " in text and "| 4,992 " in text and "nan" not in text
    with pytest.raises(MissingRuns, match="Regimes of the studies' has one row per study and none"):
        only(table, ["svd"])
