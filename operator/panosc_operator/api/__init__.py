"""One model per kind: the single source of the CRDs, of validation and of the docs' tables."""
