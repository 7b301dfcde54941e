"""istiod: watches the cluster, translates, pushes, signs, injects."""
