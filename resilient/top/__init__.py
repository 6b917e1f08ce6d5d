"""`resilient top URL`: a service at work, in the terminal, as its dashboard tells it."""
