"""Serves a class or a function that a command line names, as a worker.

    python3 -m clutch.named module:Class

calls `Class().execute(*args, **kwargs)` for each call, on a new instance; `module:function` calls
the function. The name under which it is called is that of the endpoint's function. The endpoint
starts it so for the `tasks` of a worker's file (`clutch-endpoint run --worker FILE`).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Callable

from clutch.worker import function, serve

__all__ = ["main", "named"]


def named(spec: str) -> Callable[..., Any]:
    """The callable that `module:Class` or `module:function` names."""
    module, _, path = spec.partition(":")
    if not module or not path:
        raise SystemExit(f"'{spec}' names nothing: write module:Class or module:function")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        if callable(found):
            return found  # type: ignore[no-any-return]
        raise SystemExit(f"'{spec}' is neither a class nor a function")
    task: type[Any] = found
    if not callable(getattr(task, "execute", None)):
        raise SystemExit(f"the class '{spec}' has no method execute(self, *args, **kwargs)")

    def execute(*args: Any, **kwargs: Any) -> Any:
        return task().execute(*args, **kwargs)

    return execute


def main() -> None:
    """Serves what the first argument names."""
    try:
        (spec,) = sys.argv[1:]
    except ValueError:
        raise SystemExit("usage: python3 -m clutch.named module:Class") from None
    function(named(spec), name=os.environ.get("CLUTCH_FUNCTION", spec.replace(":", ".")))
    serve()


if __name__ == "__main__":
    main()
