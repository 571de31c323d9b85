"""Rules that changed after the runs were seen: date, rule, reason, and the claims they judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orthocond.report.ledger.verdicts import Verdict


@dataclass(frozen=True)
class Change:
    """A rule that changed after the runs were seen.

    Args:
        date: day of the change.
        title: the change in a few words.
        rule: the former rule and the present one.
        reason: why it changed.
        claims: numbers of the former ledger of the claims that the rule judges.
        before: verdicts before the change where they are not those of ``FORMER``.
    """

    date: str
    title: str
    rule: str
    reason: str
    claims: tuple[int, ...]
    before: Mapping[int, Verdict] = field(default_factory=dict)


ERRORS_OF_DBN = (
    *(3, 4, 5, 19, 20, 32, 47),
    *(*range(24, 28), *range(36, 44), *range(52, 59), *range(60, 65)),
)
"""Claims of the former ledger about the error of decorrelated batch norm."""

CHANGES = (
    Change(
        "2026-11-26",
        'One example shows what is "not necessarily" so',
        "The claim that better conditioning does not necessarily mean better performance was read "
        "as a statement about OW, the example in the paper. It is read as: there is an example. "
        "The example is NOG.",
        "One example proves such a sentence. NOG was chosen after the runs, as the ledger says.",
        (25,),
        {25: Verdict.FAILS},
    ),
    Change(
        "2026-11-26",
        "An effect on κ is at least a tenth of a decade",
        "Any change of κ counted if its interval excluded zero. Now the interval must lie beyond a "
        "tenth of a decade. A claim of an effect does not hold if the interval excludes such an "
        "effect.",
        "Changes of 0.06 to 0.09 decades counted as improvements. Nobody would notice them in "
        "training, and the paper speaks of decades.",
        (1, 4, 18, 33, 38, 51, 73, 74, 75, 76, 77),
    ),
    Change(
        "2026-11-26",
        "Different ranks are not compared by κ on the support",
        "κ on the support decided every comparison. Now methods of different ranks are compared by "
        "κ at a common rank, in studies that record it, and by κ with ε. Where these two "
        "contradict each other, or a comparison of the two tasks has no common rank, the claim is "
        "not comparable.",
        "OW has rank 64 and the other methods have rank 27. The smallest eigenvalue of a larger "
        "support is a different quantity, and it made OW look worst.",
        (2, 17, 21, 22, 35, 78),
    ),
    Change(
        "2026-11-26",
        "A level that is rounding noise is not comparable",
        "A level of κ was compared with ours, whatever it consisted of. Now it is not comparable "
        "where our κ is rounding noise. A decrease of such a κ is judged on the support, and a "
        "further part of the claim on Newton-Schulz in covariance pooling, which its sentence does "
        "not state, was removed.",
        "The κ of a singular covariance depends on the arithmetic, and the paper does not say "
        "which arithmetic or which ε its numbers are from (chapter 3).",
        (6, 7, 8, 18, 34, 51, 80),
    ),
    Change(
        "2026-11-26",
        "A size measured on CIFAR100 is judged on a hundred classes",
        "Sizes in Tables 1 to 3 were judged on CIFAR-10, which has most runs. Now they are judged "
        "on CIFAR100, or on the hundred classes that take its place here, or not at all.",
        "The paper measured these numbers on CIFAR100.",
        (37, 41, 52, 55, 56, 62, 64),
    ),
    Change(
        "2026-11-26",
        '"Can easily fail" is not "fails in most runs"',
        "The claim needed a failure in most runs. Now one failure shows it, and runs without a "
        "failure leave it open.",
        "Our solver works on the support in float64. It is not the solver of the paper, so our "
        "runs cannot tell how often that one fails (chapter 8).",
        (9,),
    ),
    Change(
        "2026-11-26",
        "An explanation needs what it explains",
        "A sentence that explains something, or says that it is gone, was judged wherever the "
        "methods had been run. Now it is not decidable where our runs do not have what it "
        "explains.",
        "With OL κ does not vary by a tenth of a decade here, and OW alone has no side effect on "
        "the error that these seeds show.",
        (21, 40),
    ),
    Change(
        "2026-11-26",
        "A claim about the error needs a generalisation gap",
        "A claim about the error was judged on the largest study of a data set. Now it is judged "
        "in every study in which plain SVD has a generalisation gap of at least five points, and "
        "the ledger says where the studies disagree. In other studies it is not decidable in this "
        "regime.",
        "With ten classes and all images there is hardly a gap: such runs show an effect on "
        "early optimisation only.",
        (*ERRORS_OF_DBN, *range(66, 73)),
    ),
    Change(
        "2026-11-26",
        "OW is compared with the stem of the paper",
        "The claim that an orthogonal weight alone cannot improve the generalization was judged "
        "against a plain stem as wide as that of OW. Now it is judged against plain SVD.",
        "The wide stem is itself worse than the 3×3 stem. A method that only beats this control "
        "does not contradict the paper. The control remains in the evidence for the next claim.",
        (26,),
    ),
    Change(
        "2026-11-26",
        "A conjecture gets no verdict",
        'Two conjectures were judged as results; the words "We conjecture that" were missing in '
        "one quote. Now they are listed with their evidence and without a verdict.",
        "A conjecture does not assert a result.",
        (27, 79),
    ),
    Change(
        "2026-11-26",
        "A misprint and a rounding are not failures, and no words count twice",
        "A misprint counted as a claim that does not hold. So did a rounding from 11.5% to 10%, "
        "which was listed besides the sentence that has it. One sentence of section 7 was listed "
        "twice. Now the misprint is listed as one, and each of the two sentences is one claim. All "
        "quotes are whole.",
        "These are not results, and counting a sentence twice distorts the count.",
        (14, 43, 58, 83, 84),
    ),
    Change(
        "2026-11-26",
        "Five sentences that assert a result were missing",
        'The ledger did not have them: that the results of both tasks are "very coherent", that '
        'the treatments are "complementary", that η* "might cause unstable training", that an '
        "orthogonal gradient makes η* vanish, and why NOG and OL do not work together. Now it has.",
        "A ledger of every claim must not choose among them.",
        (),
    ),
    Change(
        "2026-11-27",
        "Holm's adjustment counts comparisons whose runs are missing",
        "The adjustment counted the comparisons of the primary family that had been run. Now it "
        "counts all that were named for the task.",
        "When a study begins, one comparison has seeds. It was not adjusted at all, and two seeds "
        "of NOG in cifar10-few gave p = 0.032; with all four comparisons, p = 0.13.",
        (4, 27, 36, 37, 52, 54, 60, 61, 62, 63, 64, 69, 71, 72),
    ),
    Change(
        "2026-11-27",
        "The error is the one with recalibrated statistics",
        "A claim about the error of decorrelated batch norm was judged by the error with moving "
        "averages. Now it is judged by the error with recalibrated statistics. Only the last claim "
        "of the ledger moved when this changed: OLR was worse than a tenth of the learning rate "
        "with moving averages, and with recalibrated statistics this is not decided.",
        "The plan of the studies of few images, written before their runs, named the recalibrated "
        "error, and the ledger did not follow it. The studies on all images follow the same rule.",
        ERRORS_OF_DBN,
    ),
    Change(
        "2026-11-27",
        "A claimed size does not hold if the interval ends before it",
        "A smaller effect than the paper claims stayed undecided. Now the claim does not hold, "
        "with or without a smaller effect. No verdict moved when this changed.",
        "A study of two seeds, whose interval has zero, refuted a size that others left open.",
        (34, 37, 41, 52, 55, 56, 63, 64, 67, 69, 70, 72),
    ),
    Change(
        "2026-11-27",
        "The cause of spikes is not decidable without spikes",
        "The claim that evaluation causes the periodic spikes of κ did not hold, because κ has no "
        "spikes here. Now it is not decidable.",
        "It is an explanation, and the rule for explanations had left it out.",
        (73,),
        {73: Verdict.FAILS},
    ),
    Change(
        "2026-11-28",
        "A study with one measure does not decide where two measures contradict each other",
        "Methods of different rank were compared by κ with ε in studies that do not record κ at a "
        "common rank, and the verdict counted. Now it counts only if no study with both measures "
        "finds that they contradict each other.",
        "In cifar10-few-h200 OW has a κ with ε ten times smaller than OL, and a κ at a common rank "
        "ten times larger. Two claims held only because other studies do not record the second.",
        (2, 17, 22, 35),
        {2: Verdict.FAILS, 17: Verdict.FAILS, 22: Verdict.HOLDS, 35: Verdict.HOLDS},
    ),
    Change(
        "2026-11-28",
        "Holm's adjustment holds for claims of no harm, too",
        "A claim that a treatment does not raise the error by 0.3 points or more used the "
        "unadjusted interval. Now such a claim fails only if the adjusted p-value excludes zero.",
        "In cifar10-few the same difference was undecided for one claim and decided another. No "
        "verdict over all studies moved when this changed.",
        (25, 32),
        {25: Verdict.HOLDS, 32: Verdict.FAILS},
    ),
    Change(
        "2026-11-28",
        "Four true sentences were missing, and one was half judged",
        "The ledger did not have four sentences on mathematics that hold: that SN makes the norm "
        "of the weight 1, that NOG makes the gradient orthogonal and keeps its singular vectors, "
        "and that η* is bounded for an orthogonal weight and gradient. The sentence on the "
        "conditioning and the performance of SN, OL and OW was judged by its first clause. Now "
        "each clause is a claim.",
        "A ledger of every claim must not choose among them, least of all leave out true ones.",
        (17,),
        {17: Verdict.FAILS},
    ),
    Change(
        "2026-11-28",
        "Times on a GPU count",
        "Claims about time were judged by the times on a CPU alone. Now those on a GPU count, too, "
        "and the claim says where the devices disagree.",
        "The paper measured on a GPU, and our times on a GPU did not enter the ledger.",
        (81, 82, 83),
    ),
)
"""Every rule and every reading that changed after the runs were seen, in the order of time."""
