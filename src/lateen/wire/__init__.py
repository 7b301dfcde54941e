"""What our own processes and Envoy exchange: ports, names, paths, node identity."""
