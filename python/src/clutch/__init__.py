"""Clutch for Python: functions that endpoints call, in `clutch.worker`, and the side of a
running task, in `clutch.task`.

An endpoint puts these files first on the path of its workers and of its tasks' processes. The
modules of a package `clutch` that is installed there are found beside them.
"""

from pkgutil import extend_path

from .worker import attempt, function, progress, serve, task_id

__path__ = extend_path(__path__, __name__)

__all__ = ["attempt", "function", "progress", "serve", "task_id"]
