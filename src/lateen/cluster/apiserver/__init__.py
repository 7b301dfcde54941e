"""The HTTPS Kubernetes API over the store."""
