"""What helps, put together (ours): DDAG's network and losses on CAJ's views.

Of what was tried on the synthetic benchmark this is the sum that adds up; what did not is in docs/ranking.md.
"""

from dataclasses import dataclass
from typing import ClassVar

from csvi.config import DataConfig
from csvi.data.views import Views
from csvi.methods.caj import caj_views
from csvi.methods.ddag import DDAG, DDAGSettings
from csvi.methods.method import Published


@dataclass
class StrongSettings(DDAGSettings):
    """Settings of DDAG, and of what is added to it."""

    name: str = "strong"
    channel_views: bool = True
    """Augment as CAJ does: a second view of each visible image, of one channel, and infrared channels alike."""


class Strong(DDAG):
    """DDAG that sees of each visible image a single channel too, as CAJ does."""

    Settings = StrongSettings
    title = "strong"
    paper = "ours, after DDAG and CAJ"
    published: ClassVar[Published | None] = None
    settings: StrongSettings

    def views(self, data: DataConfig) -> Views:
        """Those of CAJ, or one view of each image."""
        return caj_views(data) if self.settings.channel_views else super().views(data)
