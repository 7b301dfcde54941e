"""What is done to both clusters' controllers, step by step; each function is one scenario."""

from scenarios import deployments, jobs, limits, lives, services, sets

_OF = (deployments, sets, jobs, limits, services, lives)
SCENARIOS = {scenario: kinds for of in _OF for scenario, kinds in of.SCENARIOS.items()}
"""Function -> the kinds of objects that are compared."""
