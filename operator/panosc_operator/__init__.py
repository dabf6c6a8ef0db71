"""Kubernetes operator for analysis sessions and jobs at photon and neutron facilities."""
