"""Screening from files to results, beside its kernels alone and the same job in torch."""
