"""Every stage beside its peers, in one run: `make bench`. See `__main__` for the command, `page` for the document."""
