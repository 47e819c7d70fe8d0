from analysis.output.writing import *
