"""Validation rules of the Gateway API's kinds: the CEL rules of its CRDs, with their messages.

Source: https://github.com/kubernetes-sigs/gateway-api, config/crd of release 1.6. Constraints of single values are in
the types (``api.gateway_api``).
"""
