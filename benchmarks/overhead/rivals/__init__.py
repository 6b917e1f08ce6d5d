"""One module a rival, named by its import name: `entries()` yields what it has for each case."""
