"""The verdicts of 2026-11-26, before the rules changed: a record, which no later run changes.

They were derived from the runs that ``runs`` had on that day, by the rules that were fixed before
the runs were made (with one exception, which ``changes`` names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from orthocond.report.ledger.verdicts import Verdict


class Former(NamedTuple):
    """A claim of the former ledger.

    Args:
        number: its number there.
        verdict: its verdict there.
        words: the beginning of its quote there.
    """

    number: int
    verdict: Verdict
    words: str


FORMER = (
    Former(1, Verdict.OPEN, "Inserting an SVD meta-layer into neural networks is prone to"),
    Former(2, Verdict.FAILS, "these techniques can improve the conditioning"),
    Former(3, Verdict.FAILS, "but would hurt the performance"),
    Former(4, Verdict.FAILS, "our methods can simultaneously improve the covariance"),
    Former(5, Verdict.FAILS, "the combinations with orthogonal weight can further boost the"),
    Former(6, Verdict.FAILS, "very ill-conditioned (≈ 1e12 for decorrelated BN and ≈ 1e16"),
    Former(7, Verdict.FAILS, "the conditioning of the approximate solver (Newton-Schulz"),
    Former(8, Verdict.FAILS, "the standard BN only has a condition number of 1e3"),
    Former(9, Verdict.FAILS, "the very imbalanced eigenvalue distribution can easily make"),
    Former(10, Verdict.HOLDS, "Since the bias b has a little influence here, we can"),
    Former(11, Verdict.FAILS, "σ_max(WY_l)=σ_max(Y_l) after the spectral normalization"),
    Former(12, Verdict.FAILS, "This could help to reduce the conditioning of the covariance"),
    Former(13, Verdict.HOLDS, "enforcing orthogonality constraint could also improve the"),
    Former(14, Verdict.FAILS, "As orthogonal matrices are norm-preserving (i.e., ||WY_l||_F"),
    Former(15, Verdict.HOLDS, "for any skew-symmetric matrix, its matrix exponential is an"),
    Former(16, Verdict.HOLDS, "The orthogonal constraint is thus always satisfied during the"),
    Former(17, Verdict.FAILS, "all of these techniques attain much better conditioning"),
    Former(18, Verdict.FAILS, "The SN reduces the conditioning to around 10^5"),
    Former(19, Verdict.HOLDS, "while the validation error marginally improves"),
    Former(20, Verdict.OPEN, "The soft orthogonality by the OL brings slight improvement on"),
    Former(21, Verdict.OPEN, "The conditioning variations occur because the orthogonality"),
    Former(22, Verdict.FAILS, "the hard orthogonality by the OW achieves the best covariance"),
    Former(23, Verdict.FAILS, "continuously maintaining the condition number around 10^3"),
    Former(24, Verdict.OPEN, "the OW slightly hurts the validation error"),
    Former(25, Verdict.HOLDS, "better covariance conditioning does not necessarily"),
    Former(26, Verdict.FAILS, "orthogonalizing only the weight cannot improve the"),
    Former(27, Verdict.FAILS, "enforcing strict orthogonality only on the weight might limit"),
    Former(28, Verdict.HOLDS, "the nearest orthogonal gradient is achieved by setting the"),
    Former(29, Verdict.HOLDS, "Since we explicitly set all the singular values to 1, the"),
    Former(30, Verdict.FAILS, "Keeping Gradient Descent Direction Unchanged."),
    Former(31, Verdict.HOLDS, "our NOG only adjusts the step size in each GD direction"),
    Former(32, Verdict.OPEN, "the modified gradients will not harm the network performances"),
    Former(33, Verdict.HOLDS, "solely using the proposed NOG can largely improve the"),
    Former(34, Verdict.FAILS, "decreasing the condition number from 10^12 to 10^6"),
    Former(35, Verdict.FAILS, "this improvement is not as significant as the orthogonal"),
    Former(36, Verdict.FAILS, "our NOG can benefit more the generalization abilities"),
    Former(37, Verdict.FAILS, "the improvement of validation error by 0.6%"),
    Former(38, Verdict.FAILS, "Combining the SN with our NOG does not lead to obvious"),
    Former(39, Verdict.HOLDS, "the joint use of NOG and OL harms the network performances"),
    Former(40, Verdict.HOLDS, "the side effect of using only OW is eliminated"),
    Former(41, Verdict.HOLDS, "the performance is further boosted by 0.3%"),
    Former(42, Verdict.HOLDS, "when the gradient is orthogonal, applying the orthogonality"),
    Former(43, Verdict.OPEN, "The proposed orthogonal approaches have a direct beneficial"),
    Former(44, Verdict.FAILS, "the proposed OLR yields the updated weight nearest to an"),
    Former(45, Verdict.HOLDS, "is unbounded for arbitrary w and l"),
    Former(46, Verdict.FAILS, "it is very likely to have w^T w ≪ l^T w"),
    Former(47, Verdict.OPEN, "the proposed OLR cannot work when either the weight or"),
    Former(48, Verdict.HOLDS, "The upper bound is N^2/N^2+2"),
    Former(49, Verdict.FAILS, "the lower bound is 1/N^2+2"),
    Former(50, Verdict.OPEN, "our proposed OLR could also give a small learning rate even"),
    Former(51, Verdict.FAILS, "Our proposed OLR significantly reduces the condition number"),
    Former(52, Verdict.OPEN, "improves the validation error by 0.5%"),
    Former(53, Verdict.OPEN, "When combined with either orthogonal weight or orthogonal"),
    Former(54, Verdict.HOLDS, "jointly using our OLR achieves the best performance"),
    Former(55, Verdict.HOLDS, "outperforming only OLR by 0.5%"),
    Former(56, Verdict.HOLDS, "beating OW+NOG by 0.2%"),
    Former(57, Verdict.HOLDS, "the proposed OLR works well for simultaneously orthogonal W"),
    Former(58, Verdict.FAILS, "The proposed orthogonal approaches have a direct beneficial"),
    Former(59, Verdict.FAILS, "is very sparse (i.e., lots of zeros) and the impact can be"),
    Former(60, Verdict.FAILS, "Both of our NOG and OLR achieve better performance than other"),
    Former(61, Verdict.FAILS, "step-wise steady improvements on the validation errors"),
    Former(62, Verdict.ABSENT, "achieves the best performances across metrics and datasets"),
    Former(63, Verdict.HOLDS, "outperforming the SVD baseline by 0.4% on CIFAR10"),
    Former(64, Verdict.ABSENT, "and by 0.9% on CIFAR100"),
    Former(65, Verdict.OPEN, "the total failure times of the SVD solver in one training"),
    Former(66, Verdict.FAILS, "Among the weight treatments, the OL and OW hurt the"),
    Former(67, Verdict.OPEN, "the SN improves that of SVD by 0.2%"),
    Former(68, Verdict.OPEN, "Our proposed NOG and OLR outperform the weight treatments"),
    Former(69, Verdict.OPEN, "improve the SVD baseline by 0.4% and by 0.3%"),
    Former(70, Verdict.FAILS, "combining NOG and OW surpasses the SVD by 0.6%"),
    Former(71, Verdict.FAILS, "The joint use of OW with NOG and OLR achieves the best"),
    Former(72, Verdict.FAILS, "beats the SVD by 0.7%"),
    Former(73, Verdict.FAILS, "The periodic spikes are caused by the evaluation on the"),
    Former(74, Verdict.HOLDS, "Our OLR and the OW both reduce the condition number"),
    Former(75, Verdict.HOLDS, "the proposed NOG improves the condition number"),
    Former(76, Verdict.FAILS, "combining NOG and OW attains better conditioning than the"),
    Former(77, Verdict.FAILS, "simultaneously using all the techniques leads to the best"),
    Former(78, Verdict.FAILS, "The covariance conditioning of GCP tasks is not improved as"),
    Former(79, Verdict.FAILS, "We conjecture that this setup might cause the covariance to"),
    Former(80, Verdict.FAILS, "The approximate solver (Newton-Schulz iteration) does not"),
    Former(81, Verdict.HOLDS, "Our NOG and OLR bring negligible computational costs to the"),
    Former(82, Verdict.OPEN, "while the FP is not influenced"),
    Former(83, Verdict.HOLDS, "Even when all techniques are applied, the overall time costs"),
    Former(84, Verdict.FAILS, "the overall time costs are marginally increased by 10%"),
    Former(85, Verdict.HOLDS, "NOG and OLR have no impact on the inference speed"),
)


def _letters(text: str) -> str:
    return re.sub(r"[^\w≪≈σηκ]", "", text)


def present(former: Former, quotes: Iterable[str]) -> list[int]:
    """Return the places of the present quotes that contain the words of a former claim."""
    return [i for i, quote in enumerate(quotes) if _letters(former.words) in _letters(quote)]
