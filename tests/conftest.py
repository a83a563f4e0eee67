"""Settings that all tests share."""

from hypothesis import settings

# A busy machine must not fail a test that checks values, not times.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")
