"""The tasks of the embedded world, one file each, in the form of any benchmark; and the text of its pretraining."""

from jaxprefix.babel.tasks.choice import BABEL_CHOICE
from jaxprefix.babel.tasks.math import BABEL_MATH
from jaxprefix.babel.tasks.nli import BABEL_NLI
from jaxprefix.babel.tasks.qa import BABEL_QA
from jaxprefix.babel.tasks.text import BABEL_TEXT

TASKS = (BABEL_QA, BABEL_NLI, BABEL_CHOICE, BABEL_MATH, BABEL_TEXT)
