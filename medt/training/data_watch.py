"""Tells when the files of a dataset change while a run trains on them, or have since it began."""

from __future__ import annotations

import logging

from medt.data.changes import FileFacts
from medt.io.text import for_terminal

log = logging.getLogger("medt")


class DataWatch:
    """Compares the files of a dataset with what they were when the run began.

    Args:
        files: as they were when the dataset was opened; None watches none.

    Attributes:
        began: digest of the files as they were when the run began; it goes into checkpoints.
    """

    def __init__(self, files: FileFacts | None = None) -> None:
        self.files = files or FileFacts()
        self.began = self.files.digest()
        self._unchanged_in = 0  # the last epoch that found nothing
        self._told = False

    def look(self, epoch: int) -> None:
        """Log the first change that there is, in one line; what comes after it is not told."""
        if self._told:
            return
        changed = self.files.changed()
        if not changed:
            self._unchanged_in = epoch
            return
        self._told = True
        since = f"epoch {self._unchanged_in}" if self._unchanged_in else "the training began"
        count = "1 file" if len(changed) == 1 else f"{len(changed)} files"
        log.warning(
            f"warning: {count} of the dataset changed or went since {since}, such as "
            f"{for_terminal(str(changed[0]))}: from then on the scores may be those of other "
            "images, masks or splits"
        )

    def resumed(self, began: str | None) -> list[str]:
        """Take over the digest of the run's beginning; a line if the files are other ones by now.

        Args:
            began: from a checkpoint; None is of a version that did not note it.
        """
        if began is None or began == self.began:
            return []
        self.began = began
        return [
            "warning: the files of the dataset are not those that the run began with, or are newer "
            "copies of them (size or time of change differ)"
        ]
