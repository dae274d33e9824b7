"""One catalog for many processes: one owns the file, and the others ask it over a socket."""
