"""Imports that wait until something of the module is used.

Libraries import what they need in some cases only. These three are a fifth of what `coder ssh` takes until it has
connected. As `importlib.util.LazyLoader`, but a second import of the name is no use of it.
"""

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader

NAMES = frozenset({
    "importlib.metadata",  # websockets, to name its version where it is not a released one
    "urllib.request",  # websockets, to find proxies; we name them
    "google.protobuf.internal.python_message",  # protobuf, for where it is not compiled
})  # fmt: skip
"""Modules that are large, rarely used, and imported by libraries that every connection needs."""

_LOCK = threading.RLock()


def postpone() -> None:
    """Have the modules of `NAMES` wait for their first use, from now on."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds the modules that wait."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name in NAMES else None
        if found is not None and found.loader is not None:
            found.loader = _Waiting(found.loader)  # type: ignore[assignment]
        return found


class _Waiting:
    """Makes a module without running it."""

    def __init__(self, real: "Loader") -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["_waiting"] = self._real


class _Module(ModuleType):
    """A module that is run when an attribute is asked for that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        with _LOCK:  # who comes meanwhile waits; the module itself comes in again
            real = self.__dict__.pop("_waiting", None)
            if real is not None:
                self.__loader__ = real
                real.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)
