"""What `resilient.httpx` and `resilient.httpx2` share: the engine, written once against what both libraries have."""
