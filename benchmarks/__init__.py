from benchmarks import bare as bare  # before anything of the package
