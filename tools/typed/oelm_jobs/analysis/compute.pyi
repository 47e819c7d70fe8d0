from analysis.compute import *
