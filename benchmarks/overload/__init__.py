"""What `bench_overload.py` is made of: the app, the load, and the picture."""
