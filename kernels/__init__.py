"""Triton kernels; installs as ``dtwin_fast.kernels``. None is here yet.

``dtwin_fast.supports("triton", cell)`` gives that as the reason why the backend cannot run.
"""

# A relative import fails loudly where the folder is imported as a top-level package.
from .. import spec as spec
