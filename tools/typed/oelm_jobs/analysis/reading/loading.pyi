from analysis.reading.loading import *
