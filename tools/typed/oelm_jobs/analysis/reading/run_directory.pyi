from analysis.reading.run_directory import *
