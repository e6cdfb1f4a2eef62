"""Comparing queries with all codes: compiled programs that can be traced, and the same in numpy."""
