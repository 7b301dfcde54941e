"""Addresses, routes, service rules, DNS and host ports."""
