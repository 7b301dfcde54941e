"""The rules of the Gateway API's kinds between fields: those of its CRDs (CEL), with their words.

Source: https://github.com/kubernetes-sigs/gateway-api, config/crd of release 1.6. Rules of single values are in the
types (``api.gateway_api``).
"""
