"""Limits on what peers may use, as pure state: quotas, throttles and rates."""
