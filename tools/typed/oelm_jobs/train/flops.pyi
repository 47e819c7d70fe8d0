from train.flops import *
