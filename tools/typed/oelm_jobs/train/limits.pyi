from train.limits import *
