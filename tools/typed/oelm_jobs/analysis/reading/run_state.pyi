from analysis.reading.run_state import *
