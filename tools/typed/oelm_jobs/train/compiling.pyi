from train.compiling import *
