"""The memory layer: what agents said and did, kept durably or refused plainly."""
