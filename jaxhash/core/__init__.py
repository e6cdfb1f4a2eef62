"""What every other folder builds on: checks of arguments, and how calls from Python reach compiled programs in batches.

Nothing here knows of codes, indexes or models. Use `core.checks` and `core.batching` directly.
"""
