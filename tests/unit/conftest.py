"""Generated examples have no deadline: the machine may be busy. Names of tests are the same in all processes."""

from hypothesis import HealthCheck, settings

SHORTEST_ARCHIVE = 20
"""Bytes of gzip's header, trailer and nothing in between."""

settings.register_profile("lateen", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lateen")


def pytest_make_parametrize_id(val, argname):
    """Bytes that are no text may have the time in them, as archives have, and all processes must know a test by the
    same name. Those that are shorter than any archive keep theirs."""
    if isinstance(val, bytes) and len(val) >= SHORTEST_ARCHIVE and not (val.isascii() and val.decode().isprintable()):
        return argname
    return None
