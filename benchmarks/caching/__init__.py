"""The public suite of tests of HTTP caches, run against a transport."""
