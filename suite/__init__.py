"""The conformance tests: one module per area of the proof that offload works.

Their modules import from here, because ``fixtures`` has another name where the suite is installed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING or __name__ == "suite":
    from fixtures.testing import *  # noqa: F403
else:
    from ..testing import *  # noqa: F403
