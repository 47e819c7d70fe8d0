from analysis.blocks import *
