from analysis.reading.loaded_run import *
