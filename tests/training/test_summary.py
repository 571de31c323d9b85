from typing import Any

from orthocond.training.summary import SUMMARIZED, summarize

CONFIG = {"method": "svd", "task": "dbn", "data": {"name": "x"}, "model": "small", "seed": 3}


def metric(top1: float, failures: int) -> dict[str, Any]:
    return {
        "eval_top1": top1,
        "eval_top5": 90.0,
        "recalibrated_top1": top1 + 1,
        "recalibrated_top5": 91.0,
        "failures": failures,
        "unrecovered": 0,
    }


def test_the_last_epoch_counts_and_failures_add_up() -> None:
    kappas = [1e9, 1e9, 10.0, 30.0, 20.0]
    conditioning = [
        {"phase": "train", "step": step, **dict.fromkeys(SUMMARIZED, kappa)}
        for step, kappa in zip([10, 89, 90, 95, 100], kappas, strict=True)
    ]
    conditioning.append({"phase": "eval", "step": 100, **dict.fromkeys(SUMMARIZED, 1e12)})
    tables = {"metrics": [metric(40.0, 2), metric(60.0, 1)], "conditioning": conditioning}
    summary = summarize(CONFIG, tables, "complete", 100, 7)
    assert (summary["top1"], summary["error"], summary["recalibrated_error"]) == (60, 40, 39)
    assert (summary["failures"], summary["epochs"], summary["parameters"]) == (3, 2, 7)
    assert summary["conditioning"]["kappa"] == 20
    more = summarize(CONFIG, tables, "diverged", 100, 7, 64, {"failures": 5, "unrecovered": 4})
    assert (more["failures"], more["unrecovered"]) == (8, 4)
    assert (summary["train_images"], more["train_images"]) == (None, 64)


def test_a_run_that_ended_in_its_first_epoch_has_no_accuracy() -> None:
    summary = summarize(CONFIG, {"metrics": [], "conditioning": []}, "diverged", 3, 7)
    assert summary["top1"] is None and summary["error"] is None
    assert summary["conditioning"]["kappa"] is None


def test_a_run_without_a_probed_step_in_its_last_tenth_has_its_last_record() -> None:
    for steps, probed in ((5, range(5)), (100, [0, 80])):
        conditioning = [
            {"phase": "train", "step": step, **dict.fromkeys(SUMMARIZED, 1.0 + step)}
            for step in probed
        ]
        conditioning.append({"phase": "eval", "step": steps, **dict.fromkeys(SUMMARIZED, 1e12)})
        tables = {"metrics": [metric(40.0, 0)], "conditioning": conditioning}
        summary = summarize(CONFIG, tables, "complete", steps, 7)
        assert summary["conditioning"]["kappa"] == 1 + probed[-1]
