"""The subcommands of ``dtwin``: one module each with ``add(parser)`` and ``run(args)``."""
