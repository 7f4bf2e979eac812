"""Who a caller is, and whether it may do what it asks.

`identity` says who, `subjects` what a call is about, `rules` what a decision is, `polkit` who takes it; `actions` are
polkit's names of the permissions, and the policy files.
"""

from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.rules import Access, Question, Rules

__all__ = ["Access", "Identity", "Question", "Rules"]
