"""The CNI plugin: writes pods' redirection rules in the place of ``istio-init``, so that pods need no NET_ADMIN."""
