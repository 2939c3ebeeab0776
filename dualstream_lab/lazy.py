"""Names of a package, imported when they are first used, so that a command needs its own extra alone."""

from __future__ import annotations

from importlib import import_module


def attribute(package: str, name: str, home: str | None, *, extra: str = "") -> object:
    """The attribute ``name`` of the module ``home``, or that module, where it is called so.

    Raises AttributeError where ``home`` is None, and ImportError, naming the extra, where what it brings is
    missing.
    """
    if home is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        module = import_module(home)
    except ModuleNotFoundError as error:
        if not extra:
            raise
        install = f"pip install 'dualstream-lab[{extra}]'"
        raise ImportError(f"{package}.{name} needs {error.name}: {install}", name=error.name) from error
    return module if home == f"{package}.{name}" else getattr(module, name)
