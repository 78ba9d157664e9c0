"""Tests of the memory layer."""
