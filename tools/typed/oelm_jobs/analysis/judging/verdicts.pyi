from analysis.judging.verdicts import *
