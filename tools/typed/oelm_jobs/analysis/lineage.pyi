from analysis.lineage import *
