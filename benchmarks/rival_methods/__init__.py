"""What benchmarks/rivals.py compares: problems with references, methods and measurements."""
