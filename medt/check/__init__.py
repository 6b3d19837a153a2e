"""The check of a dataset, before it is trained on: what is wrong with it, and what suits it.

``cases.py`` reads every file once; ``images.py``, ``masks.py``, ``sizes.py``, ``splits.py`` and
``groups.py`` judge what it found; ``suggestions.py`` proposes settings, and ``recipe.py`` a
whole experiment; ``report.py`` and ``sheet.py`` show it all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medt.check.cases import CaseFacts, Settings, examine, mask_look
from medt.check.finding import ERROR, Finding
from medt.check.groups import group_findings
from medt.check.images import image_findings
from medt.check.masks import mask_findings
from medt.check.sizes import size_findings
from medt.check.splits import split_findings
from medt.data.layout import DatasetIndex

__all__ = ["CaseFacts", "Check", "Finding", "Settings", "check_dataset", "mask_look"]


@dataclass(frozen=True)
class Check:
    """What a dataset holds and what is wrong with it.

    Attributes:
        cases: in the order of ``index.cases``.
        findings: errors first.
    """

    index: DatasetIndex
    settings: Settings
    cases: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        """What stops a training."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """What does not."""
        return [finding for finding in self.findings if finding.severity != ERROR]

    def concerns(self) -> dict[str, list[str]]:
        """Case -> the codes of the findings that name it, errors first."""
        codes: dict[str, list[str]] = {}
        for finding in self.findings:
            for name in finding.cases:
                codes.setdefault(name, []).append(finding.code)
        return codes


def check_dataset(
    index: DatasetIndex,
    settings: Settings,
    advance: Callable[[int, int], None] | None = None,
) -> Check:
    """Read all files of a dataset once and judge them; what is wrong is found, not raised.

    Args:
        settings: what a training would make of the dataset.
        advance: called with the number of cases read and of all.
    """
    cases = examine(index, settings, advance)
    findings = [
        *size_findings(cases, settings),  # first, as a training shows the first ones only
        *image_findings(cases, settings),
        *mask_findings(cases, index.classes),
        *split_findings(cases, index.official, settings.distinct),
        *group_findings(cases, index.splits_file),
    ]
    findings.sort(key=lambda finding: finding.severity != ERROR)
    return Check(index, settings, tuple(cases), tuple(findings))
