from analysis.earlier import *
