"""How the tables came to be: a file per migration, each a function of the connection. See `schema`."""
