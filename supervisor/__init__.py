"""breakerd's supervisor: one process per host that owns every breaker and every count."""
