"""Tools for people who develop the project."""
