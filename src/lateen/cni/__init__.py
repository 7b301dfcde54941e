"""The CNI plugin: writes pods' redirection rules instead of ``istio-init``, so that pods need no NET_ADMIN."""
