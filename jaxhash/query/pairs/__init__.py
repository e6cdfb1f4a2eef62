"""Comparing a collection with itself: all near pairs, groups of duplicates, and deduplication."""
