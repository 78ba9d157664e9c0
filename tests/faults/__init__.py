"""Faults injected into real processes, by the ids of the fault catalogue."""
