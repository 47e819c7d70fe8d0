from analysis.output.deposit import *
