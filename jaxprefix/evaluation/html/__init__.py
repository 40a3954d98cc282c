"""report.html: figures, questions and answers of several runs in one file that needs no network."""

from jaxprefix.evaluation.html.page import Page, Row, Table, write

__all__ = ["Page", "Row", "Table", "write"]
