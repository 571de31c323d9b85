"""Claims of section 5.1 about the nearest orthogonal gradient (NOG)."""

from __future__ import annotations

from orthocond.report.ledger import derived_claims
from orthocond.report.ledger.claims.phrases import (
    better,
    conditioned,
    ill_conditioned,
    no_better,
    no_better_conditioned,
    no_worse,
    worse,
)
from orthocond.report.ledger.criteria import Compared, Given
from orthocond.report.ledger.evidence import Claim
from orthocond.report.ledger.levels import Level
from orthocond.report.ledger.verdicts import ABOVE

CLAIMS = (
    Claim(
        "Sec. 5.1",
        "As indicated above, the nearest orthogonal gradient is achieved by setting the singular "
        "value matrix to the identity matrix, i.e., setting S to I.",
        (derived_claims.polar_factor_is_nearest,),
        ("eq-17", "eq-26b"),
    ),
    Claim(
        "Sec. 5.1",
        "The orthogonal constraint is exactly enforced on the gradient as we have (UV^T)^T UV^T=I.",
        (derived_claims.gradient_is_orthogonal,),
        ("eq-17", "eq-26b"),
    ),
    Claim(
        "Sec. 5.1",
        "Since we explicitly set all the singular values to 1, the optimal conditioning is also "
        "achieved, i.e., κ(∂l/∂W)=1.",
        (derived_claims.gradient_has_kappa_one,),
        ("eq-17", "eq-26b"),
    ),
    Claim(
        "Sec. 5.1",
        "Keeping Gradient Descent Direction Unchanged.",
        (derived_claims.direction_is_kept,),
        ("eq-17a",),
    ),
    Claim(
        "Sec. 5.1",
        "Although our modification changes the gradient, the eigenvectors and the GD directions "
        "are untouched.",
        (derived_claims.singular_vectors_are_kept,),
        ("eq-17",),
        reading="eigenvectors and directions: pairs of singular vectors",
    ),
    Claim(
        "Sec. 5.1",
        "In other words, our NOG only adjusts the step size in each GD direction.",
        (derived_claims.singular_vectors_are_kept,),
        ("eq-17",),
    ),
    Claim(
        "Sec. 5.1",
        "This indicates that the modified gradients will not harm the network performances.",
        (no_worse("svd+nog"),),
        ("tab2",),
    ),
    Claim(
        "Sec. 5.1, Fig. 3",
        "As we can observe, solely using the proposed NOG can largely improve the covariance "
        "conditioning",
        (conditioned("svd+nog"),),
        ("fig3",),
    ),
    Claim(
        "Sec. 5.1, Fig. 3",
        "decreasing the condition number from 10^12 to 10^6.",
        (
            Level("svd", 12),
            Level("svd+nog", 6),
            Compared("svd+nog", measure="support", size=6),
        ),
        ("fig3", "eq-1b"),
    ),
    Claim(
        "Sec. 5.1, Fig. 3",
        "Though this improvement is not as significant as the orthogonal constraints (e.g., OL and "
        "OW)",
        (ill_conditioned("svd+nog", "svd+ol"), ill_conditioned("svd+nog", "svd+ow")),
        ("fig2", "fig3", "eq-1b"),
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "our NOG can benefit more the generalization abilities",
        (better("svd+nog"), better("svd+nog", "svd+ol"), better("svd+nog", "svd+ow")),
        ("tab2", "tab4"),
        reading="more than OL and OW do",
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "leading to the improvement of validation error by 0.6%.",
        (better("svd+nog", size=0.6, data="CIFAR100"),),
        ("tab2",),
        reading="NOG against plain SVD",
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "Combining the SN with our NOG does not lead to obvious improvements in either the "
        "conditioning or validation errors",
        (no_better_conditioned("svd+nog+sn", "svd+nog"), no_better("svd+nog+sn", "svd+nog")),
        ("fig3", "tab2"),
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "whereas the joint use of NOG and OL harms the network performances.",
        (worse("svd+nog+ol", "svd+nog"),),
        ("tab2",),
        reading="against NOG alone",
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "This is because the orthogonality constraint by loss might not be enforced under the "
        "gradient manipulation.",
        (Given(worse("svd+nog+ol", "svd+nog"), Compared("svd+nog+ol", "svd+ol", "off", ABOVE)),),
        ("tab2",),
        reading="the weight is further from orthogonal with NOG + OL than with OL",
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "When our NOG is combined with the OW, the side effect of using only OW is eliminated",
        (Given(worse("svd+ow"), better("svd+nog+ow", "svd+ow")), no_worse("svd+nog+ow")),
        ("tab2", "tab4"),
        reading="NOG + OW has a smaller error than OW, and no larger one than plain SVD",
    ),
    Claim(
        "Sec. 5.1, Table 2",
        "and the performance is further boosted by 0.3%.",
        (better("svd+nog+ow", "svd+nog", size=0.3, data="CIFAR100"),),
        ("tab2",),
        reading="NOG + OW against NOG",
    ),
    Claim(
        "Sec. 5.1",
        "This phenomenon demonstrates that when the gradient is orthogonal, applying the "
        "orthogonality constraint to the weight could also be beneficial to the generalization.",
        (better("svd+nog+ow", "svd+nog"),),
        ("tab2",),
    ),
)
