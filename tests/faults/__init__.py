"""Faults injected into real processes, judged from outside."""
