from analysis.reading.replicates import *
