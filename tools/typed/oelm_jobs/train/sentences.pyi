from train.sentences import *
