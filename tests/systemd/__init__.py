"""breakerd as a service of a real systemd, booted by the tests."""
