"""Generated examples have no deadline: the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("lateen", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lateen")
