"""Lookup of the codes near a query in address tables, on the host and in compiled programs."""
