from analysis.power import *
