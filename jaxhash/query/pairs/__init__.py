"""Comparison of a collection with itself: near pairs, duplicate groups, and deduplication."""
