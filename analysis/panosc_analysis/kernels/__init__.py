"""Pure array functions: arrays in, arrays and numbers out; no files, no Dask."""
