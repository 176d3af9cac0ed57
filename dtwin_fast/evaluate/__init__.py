"""Evaluation: the twin beside floors, ceilings and nulls, on the same trials."""
