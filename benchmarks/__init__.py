from benchmarks import bare as bare  # before any import of the package
