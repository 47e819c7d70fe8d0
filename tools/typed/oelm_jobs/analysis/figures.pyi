from analysis.figures import *
