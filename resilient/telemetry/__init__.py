"""What operators see: metrics for Prometheus and one log record a transition. Both only listen and read."""
