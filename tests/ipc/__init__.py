"""Tests of `ipc`, one file per file."""
