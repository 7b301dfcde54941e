"""Turns Pod objects into processes through the runtime."""
