"""Tests of `supervisor.ctl`, one file per file."""
