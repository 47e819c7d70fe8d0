from analysis.told import *
