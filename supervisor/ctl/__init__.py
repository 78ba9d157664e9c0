"""supervisorctl: what an operator types, asked of the supervisor and shown."""
