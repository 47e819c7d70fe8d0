from train.estimate import *
