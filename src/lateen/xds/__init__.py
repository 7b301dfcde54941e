"""From a proxy's frozen view to Envoy resources: pure functions."""
