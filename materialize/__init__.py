"""What to run now, and running it: staleness, plan, execution.

The package is also the function `headwater.materialize(…)`: see `headwater.materialize.api.materialize`.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from headwater.materialize.api import materialize

        return materialize(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
