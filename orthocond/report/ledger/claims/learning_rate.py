"""Claims of section 5.2 and appendix A about the optimal learning rate (OLR)."""

from __future__ import annotations

from orthocond.report.ledger import derived_claims
from orthocond.report.ledger.claims.phrases import (
    ALL,
    HYBRIDS,
    best,
    better,
    conditioned,
    no_better,
    worse,
)
from orthocond.report.ledger.evidence import Claim
from orthocond.report.ledger.levels import Level
from orthocond.report.ledger.verdicts import ABOVE

CLAIMS = (
    Claim(
        "Sec. 5.2",
        "Though the proposed OLR yields the updated weight nearest to an orthogonal matrix "
        "theoretically",
        (derived_claims.rule_is_nearest_to_orthogonal,),
        ("eq-18b", "eq-20b"),
    ),
    Claim(
        "Sec. 5.2",
        "the value of η^* is unbounded for arbitrary w and l.",
        (derived_claims.rule_is_unbounded,),
        ("eq-20b", "eq-20c"),
        reading="no number bounds it for all weights and gradients",
    ),
    Claim(
        "Sec. 5.2",
        "Directly using η^* might cause unstable training.",
        (derived_claims.unswitched_rule_does_not_settle,),
        ("eq-20b", "eq-20c"),
        reading="there is a loss on which descent with η* does not settle, and with a fixed rate "
        "does",
    ),
    Claim(
        "Sec. 5.2",
        "When only W is orthogonal, w^T w is a small constant and it is very likely to have "
        "w^T w ≪ l^T w.",
        (derived_claims.weight_product_is_small,),
        ("eq-20d",),
        reading="at an orthogonal weight, in decorrelated BN",
    ),
    Claim(
        "Sec. 5.2",
        "Similarly for orthogonal gradient, we have w^T w l^T w ≪ l^T w l^T l and this will cause "
        "η^* close to zero.",
        (derived_claims.orthogonal_gradient_outweighs_the_weight,),
        ("eq-20d",),
        reading="w^T w ≪ l^T l for the orthogonal gradient of a stem as it is initialised",
    ),
    Claim(
        "Sec. 5.2",
        "Therefore, the proposed OLR cannot work when either the weight or gradient is orthogonal.",
        (no_better("svd+ow+olr", "svd+ow"), no_better("svd+nog+olr", "svd+nog")),
        ("tab3",),
        reading="adding OLR to OW, or to NOG, does not reduce the error",
    ),
    Claim(
        "Sec. 5.2, Prop. 1",
        "When both W and ∂l/∂W are orthogonal, η^* is both upper and lower bounded.",
        (derived_claims.rule_is_bounded,),
        ("eq-42a",),
    ),
    Claim(
        "Sec. 5.2, Prop. 1",
        "The upper bound is N^2/(N^2+2)",
        (derived_claims.upper_bound_holds,),
        ("eq-42a",),
    ),
    Claim(
        "Sec. 5.2, Prop. 1",
        "and the lower bound is 1/(N^2+2) where N denotes the row dimension of W.",
        (derived_claims.lower_bound_holds,),
        ("eq-39", "eq-42a"),
    ),
    Claim(
        "Sec. 5.2",
        "This indicates that our proposed OLR could also give a small learning rate even in the "
        "later stage of the training process.",
        (Level(ALL, 0, "used", ABOVE), Level("svd+olr", 0, "used", ABOVE)),
        ("fig4",),
        reading="OLR's own rate is still taken in the last epoch",
    ),
    Claim(
        "Sec. 5.2, Fig. 4",
        "Our proposed OLR significantly reduces the condition number to 10^4",
        (conditioned("svd+olr"), Level("svd+olr", 4)),
        ("fig4", "eq-1b"),
    ),
    Claim(
        "Sec. 5.2, Table 3",
        "and improves the validation error by 0.5%.",
        (better("svd+olr", size=0.5, data="CIFAR100"),),
        ("tab3",),
        reading="OLR against plain SVD",
    ),
    Claim(
        "Sec. 5.2, Table 3",
        "When combined with either orthogonal weight or orthogonal gradient, there is a slight "
        "degradation on the validation errors.",
        (worse("svd+ow+olr", "svd+olr"), worse("svd+nog+olr", "svd+olr")),
        ("tab3",),
    ),
    Claim(
        "Sec. 5.2, Table 3",
        "However, when both W and ∂l/∂W are orthogonal, jointly using our OLR achieves the best "
        "performance",
        best(ALL, ("svd", "svd+nog", "svd+olr", *HYBRIDS, "ns")),
        ("tab3",),
    ),
    Claim(
        "Sec. 5.2, Table 3",
        "outperforming only OLR by 0.5%",
        (better(ALL, "svd+olr", size=0.5, data="CIFAR100"),),
        ("tab3",),
    ),
    Claim(
        "Sec. 5.2, Table 3",
        "and beating OW+NOG by 0.2%.",
        (better(ALL, "svd+nog+ow", size=0.2, data="CIFAR100"),),
        ("tab3",),
    ),
    Claim(
        "Sec. 5.2",
        "This observation confirms that the proposed OLR works well for simultaneously orthogonal "
        "W and ∂l/∂W.",
        (better(ALL, "svd+nog+ow"),),
        ("tab3",),
        reading="adding OLR to NOG + OW reduces the error",
    ),
    Claim(
        "App. A.2",
        "which means that i is very sparse (i.e., lots of zeros) and the impact can be neglected.",
        (derived_claims.identity_is_negligible,),
        ("eq-32", "eq-20b"),
    ),
)
