"""Alembic's folder: `env` says how the tables are brought up to date, `versions` what was done."""
