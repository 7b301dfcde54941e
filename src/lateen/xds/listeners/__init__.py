"""Listeners: outbound and inbound of sidecars, and those of gateways."""
