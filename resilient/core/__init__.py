"""What the policies decide, as pure state machines: time and chance are arguments, and nothing waits."""
