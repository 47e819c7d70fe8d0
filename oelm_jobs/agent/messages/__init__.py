"""The types of what the agent's verbs are asked and answer (verbs.py has their limits), by subject.

For type checkers alone: nothing imports this package when it runs.
"""

from .doctor import *
from .files import *
from .notify import *
from .runs import *
from .slurm import *
from .target import *
