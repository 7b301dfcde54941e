"""pilot-agent: one beside each Envoy."""
