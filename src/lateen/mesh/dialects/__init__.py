"""Translates users' objects into the mesh's own routes (``mesh.routing``), one module for each family of kinds."""
