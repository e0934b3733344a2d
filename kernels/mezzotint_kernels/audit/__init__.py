"""What Triton makes of the kernels, read without a GPU: `python -m mezzotint_kernels.audit`."""
