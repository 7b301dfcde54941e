"""pilot-agent, which runs beside each Envoy."""
