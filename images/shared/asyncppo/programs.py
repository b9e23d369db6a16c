"""How the programs of this distribution are started. Owns the interpreter's prefix, and the variable that names a user's own folders.

The working directory, where a manifest and its environment often lie, is never in front of the standard library: a `types.py` there
would be everybody's `types`. Who imports the user's modules (`asyncppo_runtime.environments.registry`) adds their folders at the end.
"""

import sys

MODULE = (sys.executable, "-P", "-m")
"""argv up to the module's name. -P: nothing unsafe in front of sys.path."""

IMPORTS_VARIABLE = "ASYNCPPO_IMPORTS"
"""Folders from which a Custom environment is imported, parted like PYTHONPATH."""
