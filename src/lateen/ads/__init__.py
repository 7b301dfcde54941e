"""Delta ADS: one proxy's conversation (pure) and the gRPC server that carries it."""
