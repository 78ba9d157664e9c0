"""Tests with real processes, servers and time."""
