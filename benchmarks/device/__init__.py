"""What ``python benchmarks/gpu.py`` runs: the engine beside its peers on an NVIDIA GPU."""
