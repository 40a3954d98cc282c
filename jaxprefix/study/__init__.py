"""The study: tables of many runs from one specification.

specification.py reads a specification, and plan.py expands it to cells and to the rows of its tables. work.py trains
and evaluates what is missing; select.py chooses learning rates; folder.py knows the files. results.py and figures.py
make study.json, which tables.py, files.py and pictures.py show. listing.py and dry_run.py say what a study would do.
"""
