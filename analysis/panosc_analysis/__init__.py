"""Analyses of photon and neutron data: on a laptop, in a notebook, on Dask workers."""
