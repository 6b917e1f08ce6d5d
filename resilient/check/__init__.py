"""`resilient check module:app`: what a service is composed of, and what will become of each failure."""
