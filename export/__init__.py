"""Export to other runtimes; installs as ``dtwin_fast.export``. No exporter is here yet."""

# A relative import fails loudly where the folder is imported as a top-level package.
from .. import spec as spec
