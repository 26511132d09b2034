"""What no step of the flow owns."""
