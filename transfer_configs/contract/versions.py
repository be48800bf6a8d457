"""What a process ran on, for the record of its result."""

import importlib.metadata
import sys


def of(*modules: str) -> dict[str, str]:
    """The version of each imported module, under the name of the package that provides it here.

    Frameworks come in several packages of the same modules. Where that has another name, what the module says of itself
    is there too.
    """
    providers = importlib.metadata.packages_distributions()
    found = {}
    for module in modules:
        names = sorted(set(providers.get(module, ())))
        if module not in names and hasattr(sys.modules.get(module), "__version__"):
            found[module] = str(sys.modules[module].__version__)
        found |= {name: importlib.metadata.version(name) for name in names}
    return found
