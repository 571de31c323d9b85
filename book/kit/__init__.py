"""Functions by which the chapters show figures, tables and sentences about runs.

Plotting and statistics are in orthocond.report. The modules here find the runs of the book, and
turn figures, tables and sentences into elements of a page.
"""

from kit.elements import show_figure, show_table
from kit.example_scripts import run_example
from kit.runs import ROOT, all_studies, folders, held_out, of_committed_runs, study
from kit.sentences import power, study_text
from kit.study_elements import (
    study_choices,
    study_differences,
    study_figure,
    study_hours,
    study_ledger,
    study_overview,
    study_regimes,
    study_rules,
    study_summary,
    study_table,
    study_verdicts,
)

__all__ = [
    "ROOT",
    "all_studies",
    "folders",
    "held_out",
    "of_committed_runs",
    "power",
    "run_example",
    "show_figure",
    "show_table",
    "study",
    "study_choices",
    "study_differences",
    "study_figure",
    "study_hours",
    "study_ledger",
    "study_overview",
    "study_regimes",
    "study_rules",
    "study_summary",
    "study_table",
    "study_text",
    "study_verdicts",
]
