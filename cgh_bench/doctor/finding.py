"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "absent", "broken"]
"""`note`: works, but read on. `absent`: optional, and not there. `broken`: must be mended."""


@dataclass(frozen=True)
class Finding:
    """What a check found, what follows from it, and what mends it."""

    subject: str
    """What was looked at: `torch`, `detectron2`, `data coco`, …; tasks name what they need by it."""
    state: State
    found: str
    consequence: str = ""
    remedy: str = ""
    """The exact command, or the words for what only a person can do."""

    def __post_init__(self) -> None:
        assert self.state == "ok" or (self.consequence and self.remedy), self

    @property
    def prevents(self) -> bool:
        """Whether what needs the subject cannot run."""
        return self.state in ("absent", "broken")
