"""What application code and managed workers use. Imports `ipc`, never `supervisor`."""
