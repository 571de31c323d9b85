"""Claims of the abstract and the introduction."""

from __future__ import annotations

from orthocond.config.tasks import TASKS
from orthocond.report.ledger.claims.phrases import (
    ALL,
    WEIGHTS,
    better,
    conditioned,
    ill_conditioned,
    worse,
)
from orthocond.report.ledger.evidence import Claim
from orthocond.report.ledger.levels import CanHappen, Level

CLAIMS = (
    Claim(
        "Abstract",
        "Inserting an SVD meta-layer into neural networks is prone to make the covariance "
        "ill-conditioned, which could harm the model in the training stability and generalization "
        "abilities.",
        (ill_conditioned("svd", "bn"), ill_conditioned("svd", "gap", task="gcp")),
        ("fig1", "eq-1b"),
        reading="κ is larger than in the same network without the meta-layer",
    ),
    Claim(
        "Abstract",
        "However, these techniques can improve the conditioning",
        tuple(conditioned(method) for method in WEIGHTS),
        ("fig2",),
        reading="SN, OL and OW each",
    ),
    Claim(
        "Abstract",
        "but would hurt the performance.",
        tuple(worse(method) for method in WEIGHTS),
        ("tab1",),
        reading="SN, OL and OW each; the paper's own Table 1 contradicts it: the mean error is "
        "19.94% with SN and 19.73% with OL, and 19.99% with plain SVD",
    ),
    Claim(
        "Abstract",
        "Extensive experiments on visual recognition demonstrate that our methods can "
        "simultaneously improve the covariance conditioning and generalization.",
        tuple(
            phrase(method, task=task)
            for task in TASKS
            for method in ("svd+nog", "svd+olr")
            for phrase in (conditioned, better)
        ),
        ("fig3", "fig4", "fig5", "tab4", "tab5"),
        reading="NOG and OLR each, in both tasks",
    ),
    Claim(
        "Abstract",
        "Moreover, the combinations with orthogonal weight can further boost the performances.",
        tuple(
            better(*pair, task=task)
            for task in TASKS
            for pair in (("svd+nog+ow", "svd+nog"), (ALL, "svd+olr"))
        ),
        ("tab4", "tab5"),
        reading="NOG + OW against NOG, and all three against OLR, in both tasks",
    ),
    Claim(
        "Sec. 1, Fig. 1",
        "As can be seen, the integration of the SVD layer makes the generated covariance very "
        "ill-conditioned (≈ 1e12 for decorrelated BN and ≈ 1e16 for GCP).",
        (Level("svd", 12), Level("svd", 16, task="gcp")),
        ("fig1", "eq-1b", "eq-1c"),
    ),
    Claim(
        "Sec. 1, Fig. 1",
        "By contrast, the conditioning of the approximate solver (Newton-Schulz iteration [20]) is "
        "about 1e5 for decorrelated BN and is around 1e15 for GCP",
        (Level("ns", 5), Level("ns", 15, task="gcp")),
        ("fig1", "eq-1b", "eq-1c"),
    ),
    Claim(
        "Sec. 1, Fig. 1",
        "while the standard BN only has a condition number of 1e3.",
        (Level("bn", 3),),
        ("fig1", "eq-1b"),
    ),
    Claim(
        "Sec. 1, Table 5",
        "Moreover, the very imbalanced eigenvalue distribution can easily make the SVD solver fail "
        "to converge and cause the training failure [56, 46].",
        (CanHappen("svd"), CanHappen("svd", task="dbn")),
        ("tab5",),
        reading="a decomposition fails in a run of plain SVD; our solver, which uses the support "
        "in float64, is not the paper's, so runs without a failure do not refute it",
    ),
)
