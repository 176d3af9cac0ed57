"""Screening: every person of a cohort, from their files to scores, in constant memory."""
