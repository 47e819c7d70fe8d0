from train.vocabulary import *
