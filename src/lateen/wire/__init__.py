"""What our own processes and Envoy say to each other: ports, names, paths, node identity."""
