"""Argument checks and batched calls of compiled programs, used by all other packages.

Independent of codes, indexes and models. Import from `core.checks` and `core.batching` directly.
"""
