"""Direct tests of what an audit by canaries cannot see: noise, clipping and sampling, each on its own.

A canary audit sees the sum of everything, weakly: noise that is the same in every step, or batches of a
fixed size, leave its bound low. These tests look at one promise each, and are therefore sharp.
"""

from sfumato.audit.direct.clipping import clipping
from sfumato.audit.direct.noise import noise
from sfumato.audit.direct.sampling import sampling

__all__ = ["clipping", "noise", "sampling"]
