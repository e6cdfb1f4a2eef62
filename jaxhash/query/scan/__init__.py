"""Comparison of queries with all codes, in traceable programs and in numpy."""
