"""``chatapi doctor``: checks a configured server step by step, and says in plain words what is wrong and what to do.

What was seen is judged by pure code, which makes ``_findings``: ``_settings``, ``_oddities``, ``_network``,
``_refusals``, ``_answers``. A thin shell looks (``_probes``), asks (``_asking``), and goes from step to step
(``_examination``).
"""

from __future__ import annotations

from ._examination import Limits, examine
from ._findings import Finding, needs_mending, verdict
from ._settings import Settings

__all__ = ["Finding", "Limits", "Settings", "examine", "needs_mending", "verdict"]
