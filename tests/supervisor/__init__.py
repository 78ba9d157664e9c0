"""Tests of `supervisor`, one file per file."""
