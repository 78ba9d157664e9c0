"""One file per migration. A migration only adds: a process of the version before must go on working."""
