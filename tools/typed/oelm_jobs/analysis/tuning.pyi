from analysis.tuning import *
