"""The engine beside its peers: verified first, then timed; installs as ``dtwin_fast.benchmarks``.

``dtwin bench`` and ``python benchmarks/run.py`` are one command.
"""

# A relative import fails loudly where the folder is imported as a top-level package.
from .. import spec as spec
