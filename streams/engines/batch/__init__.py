"""The batch engine: consumer batches in, one transaction out."""
